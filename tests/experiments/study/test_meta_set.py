"""In which order clips come, and which clips the meta-set has."""

from itertools import islice

import numpy as np

from mama_ray.config import with_overrides
from mama_ray.experiments.study.run_cell import make_meta_set, meta_batches, training_batches


def test_every_clip_is_seen_once_per_pass(splits, small_study):
    batches = list(islice(training_batches(splits["train"], small_study.cell), 6))
    rows = np.concatenate([batch.rows.numpy() for batch in batches])
    assert sorted(rows[:48]) == sorted(rows[48:]) == list(range(48))
    assert not np.array_equal(rows[:48], rows[48:])


def test_meta_batches_cover_the_meta_set(splits, small_study):
    cell = small_study.cell
    meta = make_meta_set(splits["meta"], cell.meta_set, seed=cell.seed)
    rows = np.concatenate([batch.rows.numpy() for batch in islice(meta_batches(meta, cell), 2)])
    assert sorted(rows) == list(range(16))


def test_a_clean_meta_set_is_balanced_and_true(splits, small_study):
    meta = make_meta_set(splits["meta"], small_study.cell.meta_set, seed=7)
    assert set(np.unique(meta.topics, return_counts=True)[1]) == {2}
    assert np.array_equal(meta.token_ids, splits["meta"].token_ids[:16])


def test_a_degraded_meta_set_has_as_many_foreign_captions_as_asked(splits, small_study):
    config = with_overrides(small_study.cell.meta_set, {"wrong_share": 0.5})
    meta = make_meta_set(splits["meta"], config, seed=7)
    changed = [not np.array_equal(a, b) for a, b in zip(meta.token_ids, splits["meta"].token_ids[:16], strict=True)]
    assert sum(changed) == 8
    assert sorted(map(tuple, meta.token_ids)) == sorted(map(tuple, splits["meta"].token_ids[:16]))


def test_an_imbalanced_meta_set_has_frequent_topics(splits, small_study):
    config = with_overrides(small_study.cell.meta_set, {"zipf_exponent": 4.0})
    meta = make_meta_set(splits["meta"], config, seed=7)
    assert len(meta) == 16 and len({clip.clip_id for clip in meta.clips}) == 16
    assert max(np.unique(meta.topics, return_counts=True)[1]) == 4  # all that the split has of the first topic
