import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.data.video.sampling import row_rng, sample_between_ends, sample_frame_indices, sample_timestamps


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (4, [7, 22, 37, 51]),
        (16, [2, 5, 9, 13, 16, 20, 24, 28, 31, 35, 39, 42, 46, 50, 53, 57]),
    ],
)
def test_frame_indices_equal_the_published_ones(num_frames, expected):
    assert sample_frame_indices(0, 60, num_frames).tolist() == expected


def test_frame_indices_round_half_to_even_before_the_start_is_added():
    for start in (0, 1, 7):
        assert sample_frame_indices(start, start + 11, 4).tolist() == [start + step for step in (1, 3, 6, 9)]


@given(st.integers(0, 100), st.integers(1, 300), st.integers(1, 40))
def test_points_that_were_drawn_before_choose_frames_as_a_draw_does(start, length, num_frames):
    def chosen(offset):
        return sample_frame_indices(start, start + length, num_frames, offsets=[offset] * num_frames)

    assert (chosen(0.5) == sample_frame_indices(start, start + length, num_frames)).all()
    edges = np.round((length - 1) / num_frames * np.arange(num_frames + 1)) + start
    assert (chosen(0.0) == edges[:-1]).all() and (chosen(1 - 1e-9) == edges[1:]).all()


def test_every_frame_of_a_segment_is_as_likely():
    offsets = (np.arange(4000) + 0.5) / 4000
    chosen = [sample_frame_indices(0, 17, 4, offsets=[offset] * 4)[0] for offset in offsets]
    assert np.bincount(chosen).tolist() == [800] * 5  # round(0) ... round(4)


@given(st.integers(0, 100), st.integers(1, 300), st.integers(1, 40))
def test_frames_between_the_ends_are_those_of_the_release_and_a_half_moves_none(start, length, num_frames):
    wanted = np.linspace(0, length - 1, num_frames).astype(int) + start
    for offsets in (None, [0.5] * num_frames):
        assert (sample_between_ends(start, start + length, num_frames, offsets=offsets) == wanted).all()


@given(st.integers(1, 300), st.integers(1, 40), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_drawn_ends_lie_up_to_a_step_further_inside(length, num_frames, begin, end):
    chosen = sample_between_ends(0, length, num_frames, offsets=[begin] * (num_frames - 1) + [end])
    assert len(chosen) == num_frames and (np.diff(chosen) >= 0).all()
    step = length // max(1, num_frames - 1)
    assert 0 <= chosen[0] <= step
    assert num_frames == 1 or length - 1 - step <= chosen[-1] < length


def test_every_first_frame_within_a_step_is_as_likely():
    offsets = (np.arange(4000) + 0.5) / 4000
    first = [sample_between_ends(0, 60, 16, offsets=[offset] * 16)[0] for offset in offsets]
    assert np.bincount(first).tolist() == [800] * 5  # 0 to 60 // 15


def test_uniform_timestamps_are_the_centres_of_equal_segments():
    np.testing.assert_allclose(sample_timestamps(8.0, 4), [1, 3, 5, 7])


@given(st.floats(1e-3, 1e4), st.integers(1, 64), st.integers(0, 1000))
def test_jittered_timestamps_stay_in_their_segments(duration_s, num_frames, seed):
    times = sample_timestamps(duration_s, num_frames, rng=np.random.default_rng(seed))
    edges = np.arange(num_frames + 1) * (duration_s / num_frames)
    assert (times >= edges[:-1] * (1 - 1e-12)).all()
    assert (times <= edges[1:] * (1 + 1e-12)).all()


@given(st.integers(0, 1000), st.integers(1, 500), st.integers(1, 40), st.integers(0, 100))
def test_frame_indices_stay_in_the_interval_and_ascend(start, length, num_frames, seed):
    for rng in (None, np.random.default_rng(seed)):
        indices = sample_frame_indices(start, start + length, num_frames, rng=rng)
        assert len(indices) == num_frames
        assert indices.min() >= start
        assert indices.max() < start + length
        assert (np.diff(indices) >= 0).all()


def test_rows_have_their_own_reproducible_generators():
    draws = {row_rng(seed, epoch, row).random() for seed in (0, 1) for epoch in (0, 1) for row in range(50)}
    assert len(draws) == 200
    assert row_rng(3, 1, 7).random() == row_rng(3, 1, 7).random()


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="num_frames 0"):
        sample_timestamps(1.0, 0)
    with pytest.raises(ValueError, match="at least one frame"):
        sample_frame_indices(5, 5, 2)
