"""The windows of a long video: the documented cases, and what holds for all of them."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.data.clip import check_clip_id
from mama_ray.data.video.windows import (
    EGO4D_ALPHA_S,
    Window,
    WindowPlanConfig,
    mean_alpha,
    plan_windows,
    windows_of_moments,
)
from mama_ray.errors import UserError

SECONDS = st.floats(0.01, 200.0, allow_nan=False)
HUMAN = st.lists(st.tuples(st.floats(-20, 220), st.floats(0.0, 40)).map(lambda pair: (pair[0], sum(pair))), max_size=8)


def times(windows: list[Window]) -> list[tuple[float, float]]:
    return [(window.start_s, window.end_s) for window in windows]


def test_windows_follow_each_other_and_the_last_is_kept_from_a_half_on():
    assert times(plan_windows("v", 3.5, WindowPlanConfig())) == [(0, 1), (1, 2), (2, 3), (3, 3.5)]
    assert times(plan_windows("v", 3.499, WindowPlanConfig())) == [(0, 1), (1, 2), (2, 3)]


def test_a_video_shorter_than_half_a_window_is_one_window():
    assert times(plan_windows("v", 0.2, WindowPlanConfig())) == [(0, 0.2)]
    assert times(plan_windows("v", 0.7, WindowPlanConfig(window_s=1.0))) == [(0, 0.7)]


def test_a_stride_makes_windows_overlap_or_leaves_gaps():
    config = WindowPlanConfig(window_s=2, stride_s=1)
    assert times(plan_windows("v", 4, config)) == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert times(plan_windows("v", 9, WindowPlanConfig(window_s=1, stride_s=4))) == [(0, 1), (4, 5), (8, 9)]


def test_uncovered_windows_lie_between_human_clips():
    human = [(-1.0, 0.5), (2.25, 3.0), (2.5, 4.0), (9.0, 12.0)]
    found = plan_windows("v", 10.0, WindowPlanConfig(cover="uncovered"), human=human)
    # 0.5-2.25 has one window and three quarters of one, 4-9 has five.
    assert times(found) == [(0.5, 1.5), (1.5, 2.25), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9)]


def test_a_gap_below_half_a_window_is_left_out():
    found = plan_windows("v", 4.0, WindowPlanConfig(cover="uncovered"), human=[(0, 1.8), (2.2, 4)])
    assert found == []


def test_human_windows_are_clipped_to_the_video_and_told_once():
    human = [(3.0, 4.0), (-1.0, 1.0), (3.0, 4.0), (9.5, 12.0), (20.0, 21.0)]
    found = plan_windows("v", 10.0, WindowPlanConfig(cover="human"), human=human)
    assert times(found) == [(0, 1), (3, 4), (9.5, 10)]


def test_scenes_are_not_crossed():
    found = plan_windows("v", 5.0, WindowPlanConfig(), scenes=[(0.0, 1.7), (1.7, None)])
    assert times(found) == [(0, 1), (1, 1.7), (1.7, 2.7), (2.7, 3.7), (3.7, 4.7)]


def test_egovlp_clips_are_a_second_wide_where_narrations_are_alpha_apart():
    moments = [10.0, 10.0 + EGO4D_ALPHA_S, 10.0 + 2 * EGO4D_ALPHA_S]
    widths = [end - start for start, end in windows_of_moments(moments)]
    assert widths == pytest.approx([1.0] * 3)
    assert windows_of_moments([0.0, 9.8])[1] == pytest.approx((8.8, 10.8))


def test_one_narration_or_all_at_one_moment_take_alpha_for_their_gap():
    assert windows_of_moments([7.0]) == [(6.5, 7.5)]
    assert windows_of_moments([7.0, 7.0, 7.0]) == [(6.5, 7.5)] * 3
    assert windows_of_moments([]) == []


def test_moments_need_not_be_in_order():
    assert windows_of_moments([9.8, 0.0]) == windows_of_moments([0.0, 9.8])[::-1]


def test_alpha_is_the_mean_over_videos_that_have_gaps():
    assert mean_alpha([[0.0, 2.0, 4.0], [1.0, 7.0], [3.0], []]) == 4.0
    assert mean_alpha([[1.0]]) is None


def test_a_window_that_starts_below_zero_or_ends_past_the_video_is_clipped():
    human = windows_of_moments([0.1, 9.9])
    found = plan_windows("v", 10.0, WindowPlanConfig(cover="human"), human=human)
    assert found[0].start_s == 0 and found[-1].end_s == 10.0


def test_clips_far_beyond_any_video_are_clipped_to_it():
    config = WindowPlanConfig(cover="human")
    human = windows_of_moments([0.0, 1e305], 1e-6)
    assert times(plan_windows("v", 9, config, human=[*human, (1e305, 1.5e305), (2, 1e300)])) == [(0, 9), (2, 9)]


def test_too_many_windows_are_refused_with_their_number_and_the_limit():
    with pytest.raises(UserError, match="3600000 windows in 36000.0 s of v, wanted at most 100000"):
        plan_windows("v", 36_000, WindowPlanConfig(window_s=0.01))
    with pytest.raises(UserError, match="3 windows in .*, wanted at most 2"):
        plan_windows("v", 9, WindowPlanConfig(cover="human", max_windows=2), human=[(0, 1), (1, 2), (2, 3)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride_s": 0},
        {"window_s": 0},
        {"window_s": math.nan},
        {"stride_s": -1.0},
        {"alpha_s": 1e-320},
        {"alpha_s": 1e300},
    ],
)
def test_a_stride_or_window_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="should be"):
        WindowPlanConfig(**wrong)


@given(
    duration_s=SECONDS, window_s=st.floats(0.05, 30), stride_s=st.none() | st.floats(0.05, 30), human=HUMAN,
    scenes=st.lists(SECONDS, max_size=4),
)  # fmt: skip
def test_uncovered_windows_never_touch_a_human_clip(duration_s, window_s, stride_s, human, scenes):
    config = WindowPlanConfig(window_s=window_s, stride_s=stride_s, cover="uncovered")
    found = plan_windows("v", duration_s, config, human=human, scenes=[(cut, None) for cut in scenes])
    for window in found:
        assert all(window.end_s <= start or window.start_s >= end for start, end in human if start < end)


@given(
    duration_s=SECONDS, window_s=st.floats(0.05, 30), stride_s=st.none() | st.floats(0.05, 30), human=HUMAN,
    cover=st.sampled_from(["all", "uncovered", "human"]),
)  # fmt: skip
def test_windows_are_in_order_inside_the_video_unlike_and_the_same_each_time(
    duration_s, window_s, stride_s, human, cover
):
    config = WindowPlanConfig(window_s=window_s, stride_s=stride_s, cover=cover)
    found = plan_windows("some/video", duration_s, config, human=human)
    assert found == plan_windows("some/video", duration_s, config, human=human)
    assert times(found) == sorted(times(found))
    assert all(0 <= window.start_s < window.end_s <= duration_s for window in found)
    assert len({window.clip_id for window in found}) == len(found)
    for window in found:
        check_clip_id(window.clip_id)
    if cover != "human":
        assert all(window.end_s - window.start_s <= window_s + 1e-6 for window in found)


@given(duration_s=SECONDS, window_s=st.floats(0.05, 30))
def test_consecutive_windows_leave_nothing_out_but_less_than_half_a_window(duration_s, window_s):
    found = times(plan_windows("v", duration_s, WindowPlanConfig(window_s=window_s)))
    assert found[0][0] == 0 and all(before[1] == after[0] for before, after in pairwise(found))
    assert duration_s - found[-1][1] <= window_s / 2 + 2e-6


def test_clip_ids_tell_video_and_times_apart():
    names = {Window(video, start, end).clip_id for video in ("a", "b") for start, end in ((0, 1), (0, 2), (1, 2))}
    assert len(names) == 6 and Window("a", 0, 1.0).clip_id == Window("a", 0.0, 1).clip_id
