"""Every pair once an epoch, every clip decoded once for its questions, whatever the sizes, the batch, the workers."""

import numpy as np
import pytest

from mama_ray.data.batch import PADDING_ROW
from mama_ray.data.plan import local_batch_size
from mama_ray.data.questions.plan import QuestionPlan, QuestionPlanConfig, group_pairs


def rows_of(sizes) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


def epoch_of(plan: QuestionPlan, epoch: int = 0) -> list[np.ndarray]:
    """The pairs of each step of an epoch, without padding."""
    steps = range(epoch * plan.num_steps, (epoch + 1) * plan.num_steps)
    batches = [plan.global_batch(step, plan.batch_size)[0] for step in steps]
    return [batch[batch != PADDING_ROW] for batch in batches]


def num_decodes(plan: QuestionPlan, rows: np.ndarray, epoch: int = 0) -> int:
    return sum(len(group_pairs(rows[batch])[0]) for batch in epoch_of(plan, epoch))


@pytest.mark.parametrize("batch_size", [20, 64, 100, 1000])
@pytest.mark.parametrize("sizes", [[20] * 50, list(np.random.default_rng(0).multinomial(950, [1 / 50] * 50) + 1)])
def test_1000_questions_on_50_videos_decode_50_videos_per_epoch(sizes, batch_size):
    batch_size = max(batch_size, *sizes)
    rows = rows_of(sizes)
    assert len(rows) == 1000
    plan = QuestionPlan(rows, batch_size, QuestionPlanConfig())
    for epoch in (0, 1, 5):
        pairs = np.concatenate(epoch_of(plan, epoch))
        assert np.array_equal(np.sort(pairs), np.arange(1000))
        assert num_decodes(plan, rows, epoch) == 50


@pytest.mark.parametrize("questions_per_clip", [1, 3, 8, None])
def test_visits_are_no_larger_than_asked_and_every_pair_comes_once(questions_per_clip):
    sizes = np.random.default_rng(1).integers(1, 40, 30)
    rows = rows_of(sizes)
    plan = QuestionPlan(rows, 16, QuestionPlanConfig(questions_per_clip=questions_per_clip))
    limit = min(questions_per_clip or 16, 16)
    assert plan.num_visits == sum(-(-size // limit) for size in sizes)
    assert np.array_equal(np.sort(np.concatenate(epoch_of(plan))), np.arange(len(rows)))
    assert num_decodes(plan, rows) <= plan.num_visits


def test_questions_of_one_clip_stand_side_by_side():
    rows = rows_of([9, 2, 7, 1, 5, 8])
    plan = QuestionPlan(rows, 8, QuestionPlanConfig(questions_per_clip=2))
    batches = [rows[batch] for epoch in range(4) for batch in epoch_of(plan, epoch)]
    assert any(np.bincount(clips).max() > 2 for clips in batches)  # a clip comes with two of its visits
    assert all((np.diff(clips) >= 0).all() for clips in batches)


def test_epochs_and_seeds_differ_and_a_step_is_a_pure_function():
    rows = rows_of([5, 3, 5, 2, 1, 5, 4] * 4)
    plan = QuestionPlan(rows, 10, QuestionPlanConfig(seed=3))
    later = QuestionPlan(rows, 10, QuestionPlanConfig(seed=3)).global_batch(3 * plan.num_steps + 2, 10)
    for step in range(3 * plan.num_steps):
        plan.global_batch(step, 10)
    assert all(map(np.array_equal, plan.global_batch(3 * plan.num_steps + 2, 10), later))
    epochs = [np.concatenate(epoch_of(plan, epoch)) for epoch in range(3)]
    other = np.concatenate(epoch_of(QuestionPlan(rows, 10, QuestionPlanConfig(seed=4))))
    assert not any(np.array_equal(epochs[0], one) for one in (*epochs[1:], other))


def test_a_clips_questions_are_dealt_to_its_visits_anew_in_each_epoch():
    plan = QuestionPlan(rows_of([6]), 2, QuestionPlanConfig())
    pairs = [{frozenset(batch) for batch in map(tuple, epoch_of(plan, epoch))} for epoch in range(6)]
    assert len(set(map(frozenset, pairs))) > 1


@pytest.mark.parametrize(("world_size", "num_parts"), [(1, 1), (2, 1), (3, 2), (5, 1)])
def test_workers_batches_joined_are_the_global_batch(world_size, num_parts):
    plan = QuestionPlan(rows_of([4, 3, 3, 1, 2]), 7, QuestionPlanConfig())
    for step in range(plan.num_steps):
        local = [plan.local_batch(step, 7, rank, world_size, num_parts=num_parts) for rank in range(world_size)]
        joined = np.concatenate([pairs for pairs, _ in local])
        assert np.array_equal(joined, plan.global_batch(step, 7)[0])
        assert all(len(pairs) <= local_batch_size(7, world_size, num_parts=num_parts) for pairs, _ in local)


def test_padding_is_behind_all_pairs_and_seldom():
    sizes = np.random.default_rng(2).integers(1, 60, 2000)
    plan = QuestionPlan(rows_of(sizes), 128, QuestionPlanConfig())
    for step in range(plan.num_steps):
        is_padding = plan.global_batch(step, 128)[0] == PADDING_ROW
        assert not (np.diff(is_padding.astype(int)) < 0).any()
    assert plan.num_clips < 1.01 * plan.num_pairs


def test_what_is_no_plan_is_refused():
    with pytest.raises(ValueError, match="sorted by clip"):
        QuestionPlan(np.array([1, 0]), 4, QuestionPlanConfig())
    with pytest.raises(ValueError, match="at least one pair"):
        QuestionPlan(np.array([], int), 4, QuestionPlanConfig())
    with pytest.raises(ValueError, match="got 5, wanted 4, as planned"):
        QuestionPlan(np.array([0]), 4, QuestionPlanConfig()).global_batch(0, 5)


def test_grouping_gives_each_clip_once_and_the_rows_back():
    rows = np.array([7, 7, 2, 9, 2, 7])
    clips, places = group_pairs(rows)
    assert clips.tolist() == [7, 2, 9]
    assert np.array_equal(clips[places], rows)
