"""The rephrasing job: every place of every human caption once, a table then left alone, and bad input in one line."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import ray

from mama_ray.captioning.rephrasing.clips import text_sha256
from mama_ray.captioning.rephrasing.settings import T5_PROMPT, DecodingConfig
from mama_ray.captioning.rephrasing.wording import text_key
from mama_ray.captioning.table import SUMMARY_NAME, read_summary
from mama_ray.data.clip import Caption
from mama_ray.data.index import read_index
from mama_ray.errors import UserError
from mama_ray.orchestration.captioning.parts import part_place
from mama_ray.orchestration.rephrase.job import RephraseJob, RephrasePoolConfig
from mama_ray.orchestration.rephrase.run import rephrase
from mama_ray.orchestration.training.data import load_run_data
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.storage.places import Place
from tests.orchestration.rephrase.rephrase_runs import (
    grammar_captions,
    rows_of,
    write_captioned_shards,
    write_random_t5,
)

pytestmark = pytest.mark.ray

DECODING = DecodingConfig(num_beams=6, num_groups=6, num_kept=2, max_length=24)
ODD = {
    "odd-0": [Caption("written by a model", "generated")],
    "odd-1": [Caption("?!")],
    "odd-2": [Caption("a dog runs"), Caption("A dog runs.")],
    "odd-3": [Caption("far " * 60)],
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_captioned_shards(tmp_path_factory.mktemp("corpus") / "shards", grammar_captions(70, per_clip=2) | ODD)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_random_t5(tmp_path_factory.mktemp("model") / "t5")


@pytest.fixture(scope="module")
def job(shards, model, tmp_path_factory) -> RephraseJob:
    output = tmp_path_factory.mktemp("tables") / "rephrased"
    return RephraseJob(shards=str(shards), model=str(model), output=str(output), decoding=DECODING)


@pytest.fixture(scope="module")
def finished(ray_cluster, job) -> list[dict]:
    line = rephrase(job)
    assert line.startswith("rephrased 144 captions of 74 clips in ") and line.endswith(job.output)
    return rows_of(Path(job.output))


def test_every_human_caption_has_its_places_once_in_the_indexs_order(finished, shards):
    wanted = []
    for clip in read_index(Place.of(shards)).to_pylist():
        texts = [caption["text"] for caption in clip["captions"] if caption["source"] == "human"]
        shown = [text_sha256(text) for text in texts for _ in range(2)] or [None]
        wanted += [(clip["clip_id"], clip["sha256"], sample, sha256) for sample, sha256 in enumerate(shown)]
    found = [tuple(row[name] for name in ("clip_id", "video_sha256", "sample", "shown_sha256")) for row in finished]
    assert found == wanted and len(found) == 2 * 144 + 1


def test_no_paraphrase_equals_a_caption_of_its_clip_or_another_paraphrase(finished, shards):
    for clip in read_index(Place.of(shards)).to_pylist():
        own = [text_key(row["caption"]) for row in finished if row["clip_id"] == clip["clip_id"] and row["caption"]]
        assert len({*own}) == len(own) and not {*own} & {text_key(caption["text"]) for caption in clip["captions"]}
    assert sum(row["caption"] is not None for row in finished) > 50


def test_rows_say_how_they_were_made(finished, job):
    for row in finished:
        known = (row["source"], row["model"], row["prompt"], row["temperature"], row["seed"], row["max_tokens"])
        assert known == ("rephrased", "t5", T5_PROMPT, None, None, 24)
        assert (row["caption"] is None) == (row["error"] is not None) and row["flags"] is not None
        if row["caption"] is not None:
            assert row["num_tokens"] > 0 and row["mean_logprob"] < 0 and row["finish_reason"] == "stop"


def test_captions_that_cannot_be_rephrased_are_rows_that_say_why_and_are_counted(finished, job):
    errors = {(row["clip_id"], row["sample"]): row["error"] for row in finished if row["clip_id"].startswith("odd")}
    assert errors["odd-0", 0] == "the clip has no human caption"
    assert errors["odd-1", 0] == errors["odd-1", 1] == "the caption has no words"
    assert errors["odd-2", 2] == errors["odd-2", 3] == "the caption repeats an earlier one of its clip"
    assert errors["odd-3", 1].startswith("the caption is too long to be rephrased: ")
    summary = read_summary(Place.of(job.output))
    told = {row["error"].partition(":")[0] for row in finished if row["error"]}
    assert summary["errors"].keys() == told and sum(summary["errors"].values()) == summary["outcomes"]["error"]
    assert sum(summary["outcomes"].values()) == summary["num_rows"] == len(finished)
    assert summary["candidates"]["kept"] == sum(row["caption"] is not None for row in finished)
    assert summary["candidates"]["cut off"] > 0


def test_the_report_card_shows_captions_beside_what_became_of_them(finished, job):
    card = json.loads(Path(job.output, "report/card.json").read_text())
    assert card["title"] == "Rephrased captions" and card["num_clips"] == 74
    assert any(sample["caption"] and " \u2192 " in sample["caption"] for sample in card["samples"])
    assert Path(job.output, "report/index.html").is_file()


def test_a_second_start_leaves_a_finished_table_alone(finished, job):
    before = Path(job.output, SUMMARY_NAME).stat().st_mtime_ns
    assert rephrase(job) == f"done already, {len(finished)} rows: {job.output}"
    assert Path(job.output, SUMMARY_NAME).stat().st_mtime_ns == before
    assert rows_of(Path(job.output)) == finished


def test_another_pool_and_batch_give_the_same_rows(finished, job, tmp_path):
    other = job.model_copy(
        update={
            "output": str(tmp_path / "other"),
            "engine": job.engine.model_copy(update={"max_num_seqs": 6}),
            "pool": RephrasePoolConfig(min_size=2, max_size=2),
        }
    )
    rephrase(other)
    told = [{**row, "mean_logprob": None} for row in rows_of(tmp_path / "other")]
    assert told == [{**row, "mean_logprob": None} for row in finished]


def test_damaged_parts_are_made_again(finished, job, monkeypatch, tmp_path):
    """As after a power failure: a part has its name and not its content."""
    from mama_ray.orchestration.rephrase import run

    again = job.model_copy(update={"output": str(tmp_path / "again")})
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_files", _stop)
        with pytest.raises(_Killed):
            rephrase(again)
    names = sorted(path.name for path in (tmp_path / "again/.captioning/parts").rglob("*.parquet"))
    Path(part_place(Place.of(tmp_path / "again"), names[1]).path).write_bytes(b"PAR1 damaged")
    rephrase(again)
    assert rows_of(tmp_path / "again") == finished


class _Killed(Exception):
    pass


def _stop(*_):
    raise _Killed


def test_training_joins_the_table_and_mixes_it_by_share(finished, job):
    """As of --data.caption_tables rephrased --data.captions human 0.7 rephrased 0.3."""
    mix = {"human": 0.7, "rephrased": 0.3}
    config = DataConfig(caption_tables=(job.output,), captions=mix, exclude_flags=("boilerplate",))
    data = load_run_data(job.shards, config, seed=0, tokenizer=None)
    use = data.summary["caption_tables"][job.output]
    flagged = sum("boilerplate" in row["flags"] for row in finished)
    errors = sum(row["error"] is not None for row in finished)
    assert (use["flagged"], use["errors"], use["other_clips"]) == (flagged, errors, 0) and flagged > 0
    train = ray.get(data.train)
    assert len(train) == 73 and "odd-0" not in train["clip_id"].to_pylist()  # which has a generated caption alone
    sources = Counter(one["source"] for own in train["captions"].to_pylist() for one in own)
    assert sources == {"human": 144, "rephrased": use["used"]} and use["used"] > 30


def test_an_output_of_another_job_is_refused_in_one_line(finished, job, tmp_path):
    other = job.model_copy(update={"decoding": DECODING.model_copy(update={"num_kept": 1})})
    with pytest.raises(UserError, match=r"the folder holds the table of another job: got decoding = .*'num_kept': 1"):
        rephrase(other)
    for name, content in {
        "run": {"config.yaml": "seed: 0"},
        "captions": {SUMMARY_NAME: '{"job": {"side": 3}}'},
        "damaged": {SUMMARY_NAME: "[]"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in content.items():
            (tmp_path / name / file).write_text(text)
        with pytest.raises(
            UserError, match="the folder holds the output of another job: got .*choose another --output"
        ):
            rephrase(job.model_copy(update={"output": str(tmp_path / name)}))
        assert all((tmp_path / name / file).read_text() == text for file, text in content.items())
        assert not (tmp_path / name / ".captioning").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "val"}, "no clips whose captions could be rephrased: got .* wanted train .74 clips"),
        ({"shards": "absent"}, "no index of clips"),
        ({"model": "absent/model/name"}, "no such model"),
        ({"prompt": "say it again"}, "the prompt does not hold the caption"),
    ],
)
def test_bad_input_is_told_in_one_line(ray_cluster, job, tmp_path, changes, message):
    bad = job.model_copy(update={"output": str(tmp_path / "table")} | changes)
    with pytest.raises(UserError, match=message) as told:
        rephrase(bad)
    assert "\n" not in str(told.value)


def test_shards_without_human_captions_are_refused(ray_cluster, job, tmp_path):
    shards = write_captioned_shards(tmp_path / "shards", {"odd-0": ODD["odd-0"]})
    with pytest.raises(UserError, match="no human captions to rephrase: got 1 clips of split train with 1 generated"):
        rephrase(job.model_copy(update={"shards": str(shards), "output": str(tmp_path / "table")}))


def test_a_model_folder_of_another_kind_is_refused(ray_cluster, job, model, tmp_path):
    other = Path(shutil.copytree(model, tmp_path / "clip"))
    content = json.loads((other / "config.json").read_text()) | {"architectures": ["CLIPModel"]}
    (other / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"not the folder of a rephraser: got CLIPModel in .* wanted T5For"):
        rephrase(job.model_copy(update={"model": str(other), "output": str(tmp_path / "table")}))


def test_a_table_of_errors_alone_is_none(ray_cluster, job, tmp_path):
    captions = {f"clip-{number}": [Caption("?!")] for number in range(3)}
    shards = write_captioned_shards(tmp_path / "shards", captions)
    with pytest.raises(
        UserError, match="no caption could be rephrased: got 6 errors, such as: the caption has no words"
    ):
        rephrase(job.model_copy(update={"shards": str(shards), "output": str(tmp_path / "table")}))
    assert not (tmp_path / "table" / SUMMARY_NAME).exists()
