"""The captioning job on a corpus with bad videos: every clip once, its own caption, and a table then left alone."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from mama_ray.captioning.engines.captioner import inspect_captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig, clip_seed
from mama_ray.captioning.engines.protocol import GRID, Shown
from mama_ray.captioning.engines.vllm_engine import VllmEngine
from mama_ray.captioning.narrator.preset import SIDE
from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.captioning.table import CAPTION_SCHEMA, SUMMARY_NAME, read_caption_files, read_summary
from mama_ray.config import load_config
from mama_ray.data.index import read_index
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.job import CaptionJob, PoolConfig
from mama_ray.orchestration.captioning.run import caption
from mama_ray.storage.places import Place
from tests.captioning.tiny_models import PROMPT, write_llava
from tests.orchestration.prepare.spoiled_shards import (
    BAD,
    CHANGED,
    CORPUS,
    GARBAGE,
    NUM_CLIPS,
    TRUNCATED,
    write_shards,
    write_spoiled_shards,
)

pytestmark = [pytest.mark.ray, pytest.mark.vllm]

SAMPLING = SamplingConfig(num_captions=2, temperature=1.0, max_tokens=12, seed=3)
SMALL = EngineConfig(kv_cache_mib=32)


@dataclass(frozen=True)
class Finished:
    """A job that ran, what it said, its rows, and its files as it left them."""

    job: CaptionJob
    line: str
    rows: list[dict]
    files: dict[str, tuple[str, int]]

    @property
    def output(self) -> Path:
        return Path(self.job.output)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_spoiled_shards(tmp_path_factory.mktemp("corpus") / "shards")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_llava(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def finished(ray_cluster, shards, model, tmp_path_factory) -> Finished:
    """Two engines, several batches in each at a time."""
    job = CaptionJob(
        shards=str(shards),
        model=str(model),
        output=str(tmp_path_factory.mktemp("captions") / "table"),
        sampling=SAMPLING,
        engine=SMALL,
        pool=PoolConfig(min_size=2, max_size=2, concurrent_batches=2),
    )
    line = caption(job)
    return Finished(job, line, rows_of(job.output), files_of(job.output))


def rows_of(output: str) -> list[dict]:
    tables = list(read_caption_files(Place.of(output)))
    assert all(table.schema.equals(CAPTION_SCHEMA) for table in tables)
    return pa.concat_tables(tables).to_pylist()


def files_of(output: str) -> dict[str, tuple[str, int]]:
    """Return the hash and the time of every file below a folder."""
    paths = [path for path in Path(output).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(output)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in paths
    }


def index_of(shards: Path) -> list[dict]:
    return read_index(Place.of(shards)).to_pylist()


def video_of(shards: Path, record: dict) -> bytes:
    data = (shards / record["shard"]).read_bytes()
    return data[record["offset"] : record["offset"] + record["num_bytes"]]


def test_every_clip_has_each_of_its_captions_once_in_the_indexs_order(finished, shards):
    index = index_of(shards)
    wanted = [(clip["clip_id"], clip["sha256"], sample) for clip in index for sample in range(2)]
    assert [(row["clip_id"], row["video_sha256"], row["sample"]) for row in finished.rows] == wanted
    assert len(wanted) == 2 * NUM_CLIPS == read_summary(Place.of(finished.job.output))["num_rows"]
    for row in finished.rows:
        assert (row["caption"] is None) == (row["error"] is not None)


def test_bad_videos_are_rows_that_say_why(finished):
    errors = {place // 2: row["error"] for place, row in enumerate(finished.rows) if row["error"]}
    assert sorted(errors) == sorted(BAD)
    assert "sha256 differs" in errors[CHANGED]
    assert errors[TRUNCATED] and errors[GARBAGE] and "\n" not in errors[TRUNCATED] + errors[GARBAGE]
    for row in (finished.rows[2 * place + sample] for place in BAD for sample in range(2)):
        assert row["flags"] == []
        assert [row[name] for name in ("shown_sha256", "frame_indices", "num_tokens", "seed")] == [None] * 4
    outcomes = read_summary(Place.of(finished.job.output))["outcomes"]
    assert (outcomes["error"], sum(outcomes.values())) == (2 * len(BAD), 2 * NUM_CLIPS)
    assert f"{2 * len(BAD)} error" in finished.line and finished.line.endswith(finished.job.output)


def test_rows_say_how_they_came_about(finished, model):
    captioner = inspect_captioner(model, PROMPT)
    for row in finished.rows:
        assert (row["source"], row["model"], row["prompt"]) == ("generated", "tiny", captioner.prompt)
        assert row["weights_sha256"] == captioner.weights_sha256
        assert (row["temperature"], row["top_p"], row["max_tokens"]) == (1.0, 1.0, 12)
        if row["error"] is None:
            assert row["seed"] == clip_seed(3, row["clip_id"]) + row["sample"]
            assert row["num_tokens"] == 12 or row["finish_reason"] == "stop"
            assert ("cut_off" in row["flags"]) == (row["finish_reason"] == "length") or "empty" in row["flags"]
            assert len(row["frame_indices"]) == 12
            assert -20 < row["mean_logprob"] < 0


def test_each_caption_is_what_an_engine_writes_of_that_clips_own_grid(finished, shards, model):
    """Both samples of a clip, one clip at a time, against two engines with several batches in each."""
    prompt = inspect_captioner(model, PROMPT).prompt
    engine = VllmEngine(model, prompt, SAMPLING, SMALL)
    clips = [clip for row, clip in enumerate(index_of(shards)) if row not in BAD]
    grids = [make_clip_grid(video_of(shards, clip), ClipGridConfig(), side=SIDE) for clip in clips]
    wanted = {}
    for clip, grid in zip(clips, grids, strict=True):
        shown = Shown(GRID, grid.pixels, grid.sha256)
        first, second = engine.submit(shown, clip_seed(SAMPLING.seed, clip["clip_id"])).result()
        texts = [postprocess(text.text, PostprocessConfig()) for text in (first, second)]
        wanted[clip["clip_id"]] = (grid.sha256, grid.frame_indices.tolist(), texts)
    engine.close()
    assert len({tuple(texts) for *_, texts in wanted.values()}) == len(clips), "captions that tell no clip from another"
    good = [row for row in finished.rows if row["error"] is None]
    found = {
        one["clip_id"]: (one["shown_sha256"], one["frame_indices"], [one["caption"], other["caption"]])
        for one, other in zip(good[::2], good[1::2], strict=True)
    }
    assert found == wanted


def test_the_summary_comes_last_and_the_work_folder_is_gone(finished):
    assert max(finished.files, key=lambda name: finished.files[name][1]) == SUMMARY_NAME
    names = {"captions-000000.parquet", SUMMARY_NAME, "config.yaml", "report/index.html", "report/card.json"}
    assert set(finished.files) == names
    assert sorted(path.name for path in finished.output.iterdir()) == sorted({name.split("/")[0] for name in names})
    assert load_config(CaptionJob, finished.output / "config.yaml") == finished.job


def test_the_report_tells_how_many_engines_there_were(finished):
    times, sizes = zip(*json.loads((finished.output / "report/card.json").read_text())["pool"], strict=True)
    assert (1 <= max(sizes) <= 2, sizes[-1]) == (True, 0)  # one may have written all before the other was ready
    assert list(times) == sorted(times)


def test_a_finished_table_is_left_alone(finished):
    assert caption(finished.job) == f"done already, {2 * NUM_CLIPS} rows: {finished.job.output}"
    assert files_of(finished.job.output) == finished.files


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": SAMPLING.model_copy(update={"seed": 4})}, "sampling = "),
        ({"split": "test"}, "clips_sha256 = "),
        ({"side": 96}, "side = 96"),
    ],
)
def test_a_folder_takes_no_second_table(finished, change, named):
    with pytest.raises(UserError, match=f"the folder holds the table of another job: got .*{named}"):
        caption(finished.job.model_copy(update=change))
    assert files_of(finished.job.output) == finished.files


def test_a_clips_captions_are_the_same_in_another_table_among_other_clips(finished, tmp_path):
    job = finished.job.model_copy(
        update={"output": str(tmp_path / "again"), "split": "test", "pool": PoolConfig(concurrent_batches=1)}
    )
    caption(job)
    again = rows_of(job.output)
    assert len(again) == 2 * CORPUS.num_test
    ids = {row["clip_id"] for row in again}
    assert [without_rounding(row) for row in again] == [
        without_rounding(row) for row in finished.rows if row["clip_id"] in ids
    ]


def without_rounding(row: dict) -> dict:
    return row | {"mean_logprob": row["mean_logprob"] and round(row["mean_logprob"], 4)}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(finished, tmp_path, capsys):
    job = finished.job.model_copy(update={"output": str(tmp_path / "planned"), "dry_run": True})
    line = caption(job)
    table = capsys.readouterr().out
    for fact in (f"{NUM_CLIPS} clips in 2 shards", "0 captioned already", "2 captions per clip", "to write"):
        assert fact in table
    assert max(map(len, table.splitlines())) < 120
    assert line.startswith("dry run, nothing written: about")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.promise
def test_a_corpus_without_one_good_clip_makes_no_table(finished, tmp_path):
    write_shards(tmp_path / "shards", lambda row, video: b"no video" * 50, count=4)
    job = finished.job.model_copy(
        update={"shards": str(tmp_path / "shards"), "output": str(tmp_path / "table"), "pool": PoolConfig()}
    )
    with pytest.raises(UserError, match=r"no clip could be captioned: got 8 errors, such as: \w+"):
        caption(job)
    assert not (tmp_path / "table" / SUMMARY_NAME).exists()
