"""Key frames: exactly Q in time order whatever the clip, and the right ones where the answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mama_ray.captioning.pictures.keyframes import (
    KeyFrameConfig,
    choose_key_frames,
    density_peaks,
    motion_curve,
    motion_peaks,
    thumbnails,
)

METHODS = ("motion_peaks", "density_peaks", "uniform")


def still(num_frames: int, level: int = 90) -> np.ndarray:
    return np.full((num_frames, 32, 40, 3), level, np.uint8)


def with_flashes(num_frames: int, at: tuple[int, ...]) -> np.ndarray:
    """A still clip in which a bright square appears for one frame at each of these places."""
    frames = still(num_frames)
    for number in at:
        frames[number, 8:20, 8:20] = 250
    return frames


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_offered=st.integers(1, 20),
    num_frames=st.integers(1, 14),
    method=st.sampled_from(METHODS),
)
def test_every_method_gives_exactly_q_ascending_frames(seed, num_offered, num_frames, method):
    frames = np.random.default_rng(seed).integers(0, 256, (num_offered, 12, 12, 3), dtype=np.uint8)
    chosen = choose_key_frames(frames, KeyFrameConfig(method=method, num_frames=num_frames))
    assert len(chosen.indices) == num_frames
    assert (np.diff(chosen.indices) >= 0).all()
    assert chosen.indices.min() >= 0
    assert chosen.indices.max() < num_offered
    assert len(np.unique(chosen.indices)) == min(num_frames, num_offered)  # repeated only for want of frames
    assert 0 <= chosen.num_filled <= num_frames


@pytest.mark.parametrize("method", METHODS)
def test_a_still_clip_is_spread_evenly_or_nearly_so(method):
    chosen = choose_key_frames(still(24), KeyFrameConfig(method=method, num_frames=4))
    assert len(np.unique(chosen.indices)) == 4
    assert np.diff(chosen.indices).max() <= 12


def test_a_still_clip_has_no_peak_of_motion_and_says_so():
    assert choose_key_frames(still(24), KeyFrameConfig(num_frames=4)).num_filled == 4


def test_few_frames_are_repeated_evenly_and_counted():
    chosen = choose_key_frames(still(3), KeyFrameConfig(method="uniform", num_frames=12))
    assert np.bincount(chosen.indices).tolist() == [4, 4, 4]
    assert chosen.num_filled == 9


def test_uniform_takes_centres_of_equal_segments():
    chosen = choose_key_frames(still(12), KeyFrameConfig(method="uniform", num_frames=3))
    assert chosen.indices.tolist() == [2, 6, 10]
    assert chosen.num_filled == 0


def test_no_frame_is_an_error():
    with pytest.raises(ValueError, match="0 frames"):
        choose_key_frames(still(0), KeyFrameConfig())


def test_motion_counts_what_brightens_not_what_darkens():
    curve = motion_curve(with_flashes(6, (2,)))
    assert curve[2] >= 12 * 12  # the square and its blurred rim
    assert curve[[0, 1, 3, 4, 5]].tolist() == [0] * 5  # it also vanishes, at 3


@pytest.mark.parametrize("size", [(1, 3), (48, 64), (120, 160), (200, 300)])  # many, some and one frame at a time
def test_the_curve_of_a_clip_is_that_of_each_frame_and_the_one_before(size):
    frames = np.random.default_rng(0).integers(0, 256, (14, *size, 3), dtype=np.uint8)
    pairs = [motion_curve(frames[number - 1 : number + 1])[1] for number in range(1, 14)]
    assert motion_curve(frames).tolist() == [0, *pairs]


def test_flicker_below_one_level_after_the_blur_is_no_motion():
    frames = still(4)
    frames[1::2, ::4, ::4] += 1
    assert motion_curve(frames).tolist() == [0, 0, 0, 0]


def test_motion_peaks_are_the_flashes():
    frames = with_flashes(30, (4, 11, 19, 26))
    chosen = choose_key_frames(frames, KeyFrameConfig(num_frames=4))
    assert chosen.indices.tolist() == [4, 11, 19, 26]
    assert chosen.num_filled == 0


def test_of_many_peaks_first_and_last_stay():
    frames = with_flashes(40, tuple(range(2, 38, 3)))
    chosen = choose_key_frames(frames, KeyFrameConfig(num_frames=3))
    assert chosen.indices[[0, -1]].tolist() == [2, 35]


def test_a_slow_rise_is_baseline_and_the_bump_on_it_a_peak():
    slope = np.arange(20) ** 2
    bump = np.zeros(20, int)
    bump[8] = 60
    assert 8 in motion_peaks(slope + bump, 0.3)
    assert motion_peaks(3 * slope, 0.3).tolist() == []


@pytest.mark.parametrize(("threshold", "peaks"), [(0.1, [3, 9]), (0.6, [3])])
def test_the_threshold_is_relative_to_the_range(threshold, peaks):
    curve = np.zeros(14, int)
    curve[[3, 9]] = 100, 45
    assert motion_peaks(curve, threshold).tolist() == peaks


def test_density_peaks_take_one_frame_of_every_scene():
    rng = np.random.default_rng(0)
    scenes = np.repeat(np.eye(3) * 10, 8, axis=0)
    features = scenes + 0.01 * rng.standard_normal(scenes.shape)
    found = density_peaks(features, 3, num_neighbours=5)
    assert (found // 8).tolist() == [0, 1, 2]
    assert density_peaks(1000 * features, 3, num_neighbours=5).tolist() == found.tolist()


def test_equal_frames_stand_for_one():
    assert density_peaks(np.ones((5, 4)), 3, num_neighbours=2).tolist() == [0]
    two = np.repeat(np.eye(2), 4, axis=0)
    assert len(density_peaks(two, 4, num_neighbours=2)) == 2


def test_thumbnails_are_mean_colours():
    frames = still(2, 51)
    frames[1, :, 20:] = 255
    features = thumbnails(frames)
    assert features[0] == pytest.approx(0.2)
    assert features[1].reshape(8, 8, 3)[:, :4] == pytest.approx(0.2)
    assert features[1].reshape(8, 8, 3)[:, 4:] == pytest.approx(1.0)
