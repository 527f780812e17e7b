"""Shares of caption sources: exact in an epoch, in drawn batches as asked for, whatever the ranks."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import chisquare

from mama_ray.data.batch import TARGET_PREFIX
from mama_ray.data.classes.names import IS_GENERATED
from mama_ray.data.index import CAPTIONS_TYPE
from mama_ray.data.plan import PlanConfig
from mama_ray.data.sources import SourceAssembler, SourcePlan, absent_sources, rows_of_source, tell_absent
from mama_ray.errors import UserError

SHARES = {"human": 0.25, "rephrased": 0.15, "generated": 0.6}
NUM_CLIPS = 1013


def clips(num_clips: int = NUM_CLIPS) -> pa.Table:
    """Every clip has generated captions, every second human ones, every tenth rephrased ones."""
    captions = [
        [{"text": f"{source} {row}", "source": source} for source, every in EVERY.items() if row % every == 0]
        for row in range(num_clips)
    ]
    shards = [f"s{row // 100:02d}" for row in range(num_clips)]
    return pa.table({"shard": shards, "captions": pa.array(captions, CAPTIONS_TYPE)})


EVERY = {"human": 2, "rephrased": 10, "generated": 1}


def sources_of(plan: SourcePlan, samples: np.ndarray) -> np.ndarray:
    return np.array(plan.sources)[samples // plan.num_clips]


def test_each_epoch_has_exactly_the_shares_and_each_source_goes_through_its_clips():
    table = clips()
    plan = SourcePlan(table, SHARES, PlanConfig(seed=3))
    assert dict(zip(plan.sources, plan.counts, strict=True)) == {"generated": 608, "human": 253, "rephrased": 152}
    seen = []
    for epoch in range(4):
        samples, _ = plan.rows(epoch * NUM_CLIPS, (epoch + 1) * NUM_CLIPS)
        names, counts = np.unique(sources_of(plan, samples), return_counts=True)
        assert counts.tolist() == [plan.counts[plan.sources.index(name)] for name in names]
        for source in SHARES:
            rows = samples[sources_of(plan, samples) == source] % NUM_CLIPS
            assert np.isin(rows, rows_of_source(table, source)).all()
            seen += [(source, row) for row in rows.tolist()]
    # 4 x 253 places of 507 human clips: each has come once before any comes three times.
    times = np.bincount([row for source, row in seen if source == "human"], minlength=NUM_CLIPS)[::2]
    assert set(times.tolist()) <= {1, 2} and times.sum() == 4 * 253


def test_a_thousand_batches_agree_with_the_shares():
    plan = SourcePlan(clips(), SHARES, PlanConfig(seed=1))
    drawn = np.concatenate([plan.global_batch(step, 32)[0] for step in range(1000)])
    names, counts = np.unique(sources_of(plan, drawn), return_counts=True)
    wanted = [SHARES[name] * len(drawn) for name in names]
    assert chisquare(counts, wanted).pvalue > 0.01
    batches = sources_of(plan, drawn).reshape(1000, 32) == "generated"
    assert abs(batches.sum(1) - 0.6 * 32).max() < 4, "no batch is far from the shares"


def test_any_cut_of_the_stream_is_the_same_stream():
    plan, again = (SourcePlan(clips(57), SHARES, PlanConfig(seed=2)) for _ in range(2))
    whole, epochs = plan.rows(0, 300)
    cuts = [0, 1, 7, 57, 58, 120, 299, 300]
    pieces = [again.rows(start, stop) for start, stop in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate([rows for rows, _ in pieces]), whole)
    assert np.array_equal(np.concatenate([of for _, of in pieces]), epochs)
    ranks = [plan.local_batch(3, 20, rank, 3)[0] for rank in range(3)]
    assert np.array_equal(np.concatenate(ranks), plan.global_batch(3, 20)[0])


def test_a_source_that_no_clip_has_is_told():
    with pytest.raises(UserError, match="no clip has a caption of source asr.*0.5"):
        SourcePlan(clips(20), {"human": 0.5, "asr": 0.5}, PlanConfig())


def test_sources_that_no_clip_has_are_told_of_those_that_are_drawn(caplog):
    tables = [clips(20), clips(7)]
    assert absent_sources(tables, ["human", "rephrased", "asr"]) == ["asr"]
    assert absent_sources(iter(tables), []) == []
    tell_absent(tables, {"human": 1.0, "generated": 0.5, "asr": 0.0})
    tell_absent(tables, None)
    assert not caplog.records
    tell_absent(tables, {"human": 1.0, "asr": 0.5})
    (record,) = caplog.records
    assert "draws of asr, and no training clip has a caption of it" in record.getMessage()


class Names:
    """Says which rows it was asked for, and for which source."""

    def __init__(self, source: str) -> None:
        self.source = source

    def assemble(self, rows, epochs=None):
        return {"rows": np.asarray(rows), "epochs": np.asarray(epochs), "source": np.array([self.source] * len(rows))}


def test_a_batch_has_the_order_of_its_samples_with_what_is_generated():
    plan = SourcePlan(clips(40), SHARES, PlanConfig())
    samples, epochs = plan.rows(30, 60)
    found = SourceAssembler({source: Names(source) for source in plan.sources}, 40).assemble(samples, epochs)
    assert np.array_equal(found["rows"], samples % 40) and np.array_equal(found["epochs"], epochs)
    assert found["source"].tolist() == sources_of(plan, samples).tolist()
    assert np.array_equal(found[TARGET_PREFIX + IS_GENERATED], found["source"] == "generated")
