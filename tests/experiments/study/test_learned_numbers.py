"""Cells whose meta-set learns a margin, or the share of generated captions, beside the weights."""

import numpy as np
import pytest

from mama_ray.experiments.study.clip_arrays import ClipArrays
from tests.experiments.study.test_run_cell import as_record, run


def test_clips_with_two_texts_have_the_generated_caption_beside_their_own(splits):
    train = splits["train"]
    told = ClipArrays(train.frames, train.token_ids, train.clips, {0: train.token_ids[9], 1: train.token_ids[8]})
    batch = told.batch(np.array([1, 5, 0]), beside=True)
    assert batch.targets["has_generated"].tolist() == [True, False, True]
    np.testing.assert_array_equal(batch.token_ids, train.token_ids[[1, 5, 0]])
    np.testing.assert_array_equal(batch.generated_ids, train.token_ids[[8, 5, 9]])
    drawn = told.batch(np.array([1, 5, 0]), use_generated=np.array([True, True, False]))
    np.testing.assert_array_equal(drawn.token_ids, train.token_ids[[8, 5, 0]])
    assert drawn.generated_ids is None and drawn.targets == {}
    np.testing.assert_array_equal(told.batch(np.array([1])).token_ids, train.token_ids[[1]])


def test_shares_of_generated_captions_are_fixed_or_learned_and_told(small_study):
    told = {"told_wrong": 0.2, "meta.lr": 0.03, "meta.meta_every": 1, "num_steps": 8}
    records = {
        share: as_record(run(small_study, told | {"objective.generated_share": share}))
        for share in (0.0, 0.5, 1.0, "learned")
    }
    assert len({record.final.train_loss for record in records.values()}) == 4
    assert records[0.5].learned["generated_share"] == 0.5 and records[1.0].learned["generated_share"] == 1.0
    learned = records["learned"].learned
    assert {"generated_share/clean", "generated_share/swapped"} <= set(learned)
    assert 0.01 < abs(learned["generated_share"] - 0.5) < 0.5
    plain = as_record(run(small_study, {"num_steps": 8}))
    assert records[0.0].final.train_loss == pytest.approx(plain.final.train_loss, rel=1e-4)
    assert records[0.0].final.val == plain.final.val


@pytest.mark.parametrize("kind", ["scalar", "per_sample"])
def test_a_learned_margin_is_learned_and_told(small_study, kind):
    learned = as_record(run(small_study, {"meta.margin": kind, "meta.margin_lr": 0.05, "meta.meta_every": 1}))
    assert 0.02 < abs(learned.learned["margin"]) < 0.5 and set(learned.weights.values()) == {1.0}
    assert (learned.learned["margin_spread"] > 0) == (kind == "per_sample")
    plain = as_record(run(small_study))
    assert plain.learned == {} and learned.final.train_loss != plain.final.train_loss
