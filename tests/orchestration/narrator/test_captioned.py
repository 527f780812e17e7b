"""Captions of val are gathered from all ranks alike and scored against what people wrote of the same clips."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mama_ray.evaluation.caption_metrics.scores import NAMES
from mama_ray.orchestration.narrator.captioned import (
    Captioned,
    as_metrics,
    as_record,
    gather_captions,
    score_captioned,
    scores_from_record,
)
from mama_ray.reporting.metrics import check_value
from tests.ranks import leave_group

TEXTS = ["a red ring grows", "the blue star falls down", "صندوق أحمر يدور", "", "a small heart moves to the left"]
TABLE = pa.Table.from_pylist(
    [
        {
            "clip_id": f"clip-{row}",
            "captions": [{"text": text or "nothing moves here", "source": "human"}, {"text": "x", "source": "asr"}],
        }
        for row, text in enumerate(TEXTS)
    ]
)
CPU = torch.device("cpu")
HUMAN = frozenset(["human"])


def written() -> list[Captioned]:
    return [Captioned(row, text) for row, text in enumerate(TEXTS)]


def _gather(rank: int, folder) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    own = [[], written()[1::2], [*written()[::2], Captioned(9, None)]][rank]  # one rank has none
    found = gather_captions(own, CPU)
    (folder / f"{rank}.json").write_text(json.dumps([[one.row, one.caption] for one in found]))
    leave_group()


def test_every_rank_has_the_captions_of_all_in_the_order_of_rows(tmp_path):
    mp.spawn(_gather, (tmp_path,), nprocs=3)
    wanted = [[row, text] for row, text in enumerate(TEXTS)] + [[9, None]]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)] == [wanted] * 3


def test_one_process_alone_has_its_own():
    assert gather_captions(list(reversed(written())), CPU) == written()
    assert gather_captions([], CPU) == []


def test_only_captions_of_the_sources_that_are_learned_from_are_references():
    alone = score_captioned(written(), TABLE, sources=HUMAN, every=None)
    assert alone.num_references == 5
    assert score_captioned(written(), TABLE, sources=None, every=None).num_references == 10
    assert alone.scores["BLEU-1"] < 100, "the clip whose caption is empty"
    same = [one for one in written() if one.caption]
    assert score_captioned(same, TABLE, sources=HUMAN, every=None).scores["CIDEr-D"] == pytest.approx(10.0, abs=2.0)


def test_a_clip_that_could_not_be_read_is_counted_and_not_scored():
    spoiled = [replace(one, caption=None) if one.row == 1 else one for one in written()]
    scores = score_captioned(spoiled, TABLE, sources=HUMAN, every=1)
    assert (scores.subset.num_clips, scores.subset.num_unreadable, scores.subset.num_of) == (4, 1, 5)
    nothing = score_captioned([Captioned(0, None)], TABLE, sources=HUMAN, every=1)
    assert as_metrics(nothing) == {}


def test_scores_survive_the_record_of_a_checkpoint():
    scores = score_captioned(written(), TABLE, sources=HUMAN, every=2)
    record = json.loads(json.dumps(as_record(scores)))
    assert scores_from_record(record) == scores
    for other in (
        None,
        {},
        {"scores": 3},
        record | {"subset": None},
        record | {"scores": {"BLEU-1": "much"}},
        [record],
    ):
        assert scores_from_record(other) is None


def test_every_metric_has_its_row_in_the_table_of_names():
    metrics = as_metrics(score_captioned(written(), TABLE, sources=HUMAN, every=2))
    assert set(metrics) == {f"val/{name}" for name in NAMES} | {"val/num_captions_scored"}
    for name, value in metrics.items():
        check_value(name, value)
