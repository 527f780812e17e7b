"""The engine of gated narrators in a captioning job: the guarantees are those of vLLM's, to the row."""

import copy
import random
from pathlib import Path

import pyarrow as pa
import pytest

from mama_ray.captioning.engines.build import build_engine
from mama_ray.captioning.engines.captioner import inspect_captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig, clip_seed
from mama_ray.captioning.engines.protocol import FRAMES, Shown, caption_all
from mama_ray.captioning.pictures.show import ShowConfig, show_clip
from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.captioning.table import read_caption_files, read_summary
from mama_ray.data.index import read_index
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.job import CaptionJob, PoolConfig
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.captioning.source import ShardSource
from mama_ray.storage.places import Place
from tests.captioning.tiny_gated import write_gated
from tests.captioning.tiny_models import PROMPT
from tests.orchestration.captioning.captioning_runs import TwoNodes, write_caption_shards
from tests.orchestration.captioning.kills import caption_under_fire
from tests.orchestration.prepare.spoiled_shards import BAD, NUM_CLIPS, write_spoiled_shards

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_SAMPLES = 10
CORPUS = CorpusConfig(num_train=240, num_meta=16, num_val=32, num_test=32)  # ten chunks
FIVE = ["engine", "driver", "engine", "driver", "engine"]
SAMPLING = ["--sampling.num_captions", str(NUM_SAMPLES), "--sampling.temperature", "0.8", "--sampling.max_tokens", "8"]


def rows_of(output: str | Path) -> list[dict]:
    return pa.concat_tables(list(read_caption_files(Place.of(output)))).to_pylist()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_gated(tmp_path_factory.mktemp("gated") / "narrator")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_caption_shards(tmp_path_factory.mktemp("corpus") / "shards", CORPUS)


@pytest.fixture(scope="module")
def nodes():
    cluster = TwoNodes(head_cpus=3, node_cpus=3)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def wanted(model, shards) -> list[dict]:
    """What an engine in this process writes of all clips together, 64 captions at a time: no job, no kills."""
    records = read_index(Place.of(shards)).to_pylist()
    how = ShowConfig(FRAMES, 48, num_frames=4)
    shown = [one for one in ShardSource(str(shards), 1).show(records, how) if not isinstance(one, str)]
    sampling = SamplingConfig(num_captions=NUM_SAMPLES, temperature=0.8, max_tokens=8)
    engine = build_engine(inspect_captioner(model, PROMPT), model, sampling, EngineConfig(max_num_seqs=64))
    seeds = [clip_seed(0, record["clip_id"]) for record in records]
    answers = caption_all(engine, [Shown(FRAMES, one.content, one.sha256) for one in shown], seeds)
    engine.close()
    rows = [
        {
            "clip_id": record["clip_id"], "sample": sample, "shown_sha256": one.sha256, "seed": seed + sample,
            "caption": postprocess(text.text, PostprocessConfig()), "num_tokens": text.num_tokens,
            "finish_reason": text.finish_reason, "mean_logprob": text.mean_logprob,
        }
        for record, one, seed, texts in zip(records, shown, seeds, answers, strict=True)
        for sample, text in enumerate(texts)
    ]  # fmt: skip
    assert len(rows) == NUM_SAMPLES * sum(CORPUS.num_clips.values())
    assert len({row["caption"] for row in rows}) > len(rows) / 2
    return rows


@pytest.mark.parametrize(
    ("batch", "actors", "kills"),
    [
        pytest.param(64, 3, FIVE[:2], marks=pytest.mark.promise),
        (64, 3, FIVE),
        (64, 1, FIVE),
        (1, 3, FIVE),
        (1, 1, FIVE),
    ],
    ids=["64-3-twice", "64-3", "64-1", "1-3", "1-1"],
)
def test_ten_samples_per_clip_are_the_same_rows_whatever_is_killed(
    batch, actors, kills, wanted, nodes, model, shards, tmp_path
):
    pool = ["--pool.min_size", str(actors), "--pool.max_size", str(actors), "--pool.concurrent_batches", "1"]
    arguments = [
        "--shards", str(shards), "--model", str(model), "--engine", "gpt2", *SAMPLING, *pool,
        "--engine.max_num_seqs", str(batch),
    ]  # fmt: skip
    pending, rng, num_tables = list(kills), random.Random(batch + actors), 0
    while pending:  # where a table is whole before the last kill, the next one is shot at
        output = tmp_path / f"killed-{num_tables}"
        num_tables += 1
        caption_under_fire(nodes, arguments, output, pending, rng, tmp_path / "log", most_parts=1)
        rows = [{name: row[name] for name in wanted[0]} for row in rows_of(output)]
        logprobs = [[row.pop("mean_logprob") for row in own] for own in (rows, copy.deepcopy(wanted))]
        assert rows == [{name: row[name] for name in rows[0]} for row in wanted], f"{output.name}, left: {pending}"
        assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-4)  # batches round otherwise in the last bits


def test_a_job_with_the_gated_narrator_says_what_it_showed_and_goes_on_as_any_other(ray_cluster, model, tmp_path):
    shards = write_spoiled_shards(tmp_path / "shards")
    job = CaptionJob(
        shards=str(shards),
        model=str(model),
        output=str(tmp_path / "table"),
        sampling=SamplingConfig(num_captions=2, temperature=0.8, max_tokens=8, seed=3),
        engine=EngineConfig(name="gpt2"),
        pool=PoolConfig(min_size=2, max_size=2),
    )
    line = caption(job)
    assert f"{2 * len(BAD)} error" in line
    rows, index = rows_of(job.output), read_index(Place.of(shards)).to_pylist()
    assert [(row["clip_id"], row["sample"]) for row in rows] == [(one["clip_id"], k) for one in index for k in range(2)]
    how = ShowConfig(FRAMES, 48, num_frames=4)
    for number in (0, NUM_CLIPS - 1):
        one, row = index[number], rows[2 * number + 1]
        data = (shards / one["shard"]).read_bytes()[one["offset"] :][: one["num_bytes"]]
        shown = show_clip(data, how)
        assert (row["shown_sha256"], row["frame_indices"]) == (shown.sha256, shown.frame_indices.tolist())
        assert row["seed"] == clip_seed(3, row["clip_id"]) + 1
        assert (row["prompt"], row["model"], row["num_filled"]) == ("", "narrator", 0)
        assert -20 < row["mean_logprob"] < 0
    assert {place for place, row in enumerate(rows) if row["error"]} == {2 * bad + k for bad in BAD for k in range(2)}
    assert read_summary(Place.of(job.output))["job"]["shown_as"] == {"kind": FRAMES, "num_frames": 4}
    page = (tmp_path / "table/report/index.html").read_text()
    assert "4 frames, 48 x 48 px" in page and page.count("data:image") > len(BAD)
    assert caption(job) == f"done already, {2 * NUM_CLIPS} rows: {job.output}"
    with pytest.raises(UserError, match="frames"):
        caption(job.model_copy(update={"frames": job.frames.model_copy(update={"num_frames": 2})}))


def test_a_dry_run_of_the_gated_narrator_measures_it(ray_cluster, model, shards, tmp_path, capsys):
    job = CaptionJob(shards=str(shards), model=str(model), output=str(tmp_path / "table"), dry_run=True)
    assert "dry run, nothing written: about" in caption(job)
    told = capsys.readouterr().out
    assert "GatedNarrator" in told and "4 frames of 48 x 48 pixels" in told
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"engine": {"name": "vllm"}}, "the engine does not run this model: got --engine vllm and a GatedNarrator"),
        ({"prompt": "sentence"}, "a GatedNarrator is asked nothing"),
        ({"frames": {"show": "video"}}, "a GatedNarrator cannot be shown a clip as video"),
        ({"sampling": {"max_tokens": 77}}, "are too long together"),
    ],
)
def test_what_does_not_fit_a_gated_narrator_is_one_line(changes, told, ray_cluster, model, shards, tmp_path):
    job = CaptionJob.model_validate(
        {"shards": str(shards), "model": str(model), "output": str(tmp_path / "table"), **changes}
    )
    with pytest.raises(UserError, match=told) as refused:
        caption(job)
    assert "\n" not in str(refused.value)
