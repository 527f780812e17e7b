"""A table of paraphrases in training: joined to its clips, mixed by share, and never taken for what was generated."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mama_ray.captioning.join import COLUMNS, join_captions
from mama_ray.captioning.rephrasing.clips import ClipTexts, rephrase_clips
from mama_ray.captioning.rephrasing.settings import DecodingConfig, WordingConfig
from mama_ray.captioning.table import CAPTION_SCHEMA, SUMMARY_NAME, TABLE_VERSION, file_name, read_caption_files
from mama_ray.data.captions import choose_caption
from mama_ray.data.index import CAPTIONS_TYPE, select_captioned
from mama_ray.data.plan import PlanConfig
from mama_ray.data.sources import SourcePlan
from mama_ray.storage.places import Place
from tests.captioning.rephrasing.test_clips import Echo

TEXTS = {"a": ["a dog runs"], "b": ["rain falls", "it is raining"], "c": ["..."], "d": []}
MIX = {"human": 0.7, "rephrased": 0.3}


@pytest.fixture(scope="module")
def clips() -> pa.Table:
    captions = [[{"text": text, "source": "human"} for text in texts] for texts in TEXTS.values()]
    return pa.table(
        {
            "clip_id": list(TEXTS),
            "sha256": [f"sha of {name}" for name in TEXTS],
            "shard": ["all"] * len(TEXTS),
            "captions": pa.array(captions, CAPTIONS_TYPE),
        }
    )


@pytest.fixture(scope="module")
def joined(clips, tmp_path_factory) -> pa.Table:
    folder = write_rephrased(tmp_path_factory.mktemp("table"))
    files = read_caption_files(Place.of(folder), columns=COLUMNS)
    table, uses = join_captions(clips, {"rephrased": files}, exclude_flags=["cut_off", "markup"])
    use = uses["rephrased"]
    # Of `a` and `b` two paraphrases of each caption, one of them flagged; `c` has two error rows and `d` one.
    assert (use.used, use.flagged, use.errors, use.other_clips) == (5, 1, 3, 0)
    return table


def write_rephrased(folder: Path) -> Path:
    """Write what a job writes of these clips, whose engine says each caption in two other ways."""
    decoding = DecodingConfig(num_kept=2, num_beams=4, num_groups=4)
    asked = [ClipTexts(name, tuple(texts)) for name, texts in TEXTS.items()]
    engine = Echo("{0}", "see how {0}", "{0}, one can see", "here {0}")
    rows = [
        {**row, "clip_id": clip.clip_id, "video_sha256": f"sha of {clip.clip_id}", "source": "rephrased", "flags": []}
        for clip, own in zip(asked, rephrase_clips(asked, engine, decoding, WordingConfig()), strict=True)
        for row in own
    ]
    rows[0]["flags"] = ["markup"]
    pq.write_table(pa.Table.from_pylist(rows, schema=CAPTION_SCHEMA), folder / file_name(0))
    summary = {"version": TABLE_VERSION, "files": {file_name(0): len(rows)}}
    (folder / SUMMARY_NAME).write_text(json.dumps(summary))
    return folder


def test_paraphrases_become_captions_of_their_clips_behind_the_human_ones(joined):
    captions = {row["clip_id"]: row["captions"] for row in joined.to_pylist()}
    assert captions["a"] == [
        {"text": "a dog runs", "source": "human"},
        {"text": "a dog runs one can see", "source": "rephrased"},
    ]
    assert [one["source"] for one in captions["b"]] == ["human"] * 2 + ["rephrased"] * 4
    assert captions["c"] == [{"text": "...", "source": "human"}] and captions["d"] == []


def test_a_mix_draws_paraphrases_by_their_share(joined):
    captions = joined["captions"][0].as_py()
    rng = np.random.default_rng(0)
    drawn = Counter(choose_caption(captions, probabilities=MIX, rng=rng) for _ in range(4000))
    assert drawn["a dog runs one can see"] / 4000 == pytest.approx(0.3, abs=0.03)
    # A clip without paraphrases is drawn from what it has.
    lonely = joined["captions"][2].as_py()
    assert choose_caption(lonely, probabilities=MIX, rng=rng) == "..."


def test_a_mix_leaves_out_clips_without_any_of_its_sources(joined):
    assert select_captioned(joined, MIX)["clip_id"].to_pylist() == ["a", "b", "c"]
    assert select_captioned(joined, {"rephrased": 1.0})["clip_id"].to_pylist() == ["a", "b"]


def test_shares_of_samples_know_paraphrases_as_a_source(joined):
    plan = SourcePlan(select_captioned(joined, MIX), {"human": 2 / 3, "rephrased": 1 / 3}, PlanConfig(seed=0))
    assert plan.sources == ("human", "rephrased")
    samples, _ = plan.rows(0, 300)
    rephrased = samples[samples >= plan.num_clips] - plan.num_clips
    assert {*rephrased.tolist()} == {0, 1} and len(rephrased) == 100
