"""Boxes, links between frames and the choice of frames, against loops."""

import numpy as np
import pytest

from mama_ray.data.region_features.boxes import box_numbers, join_regions, link_regions, overlaps
from mama_ray.data.region_features.clips import clip_frame_indices


def random_boxes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    low = rng.uniform(0, 200, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(5, 100, (*shape, 2))], axis=-1)


def test_a_box_becomes_its_relative_corners_and_area():
    box = np.array([[10.0, 20.0, 109.0, 69.0]])
    np.testing.assert_allclose(
        box_numbers(box, width=320, height=240), [[10 / 320, 20 / 240, 109 / 320, 69 / 240, 100 * 50 / (320 * 240)]]
    )
    regions = join_regions(np.ones((2, 3, 7)), random_boxes(np.random.default_rng(0), 2, 3), width=320, height=240)
    assert regions.shape == (2, 3, 12) and regions.dtype == np.float32


def test_overlap_equals_a_count_of_pixels():
    rng = np.random.default_rng(1)
    boxes, others = (np.sort(rng.integers(0, 30, (5, 2, 2)), axis=1).reshape(5, 4) for _ in range(2))
    for i, a in enumerate(boxes):
        for j, b in enumerate(others):
            masks = np.zeros((2, 30, 30), bool)
            for mask, (x1, y1, x2, y2) in zip(masks, (a, b), strict=True):
                mask[y1 : y2 + 1, x1 : x2 + 1] = True
            wanted = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
            assert overlaps(boxes.astype(float), others.astype(float))[i, j] == pytest.approx(wanted)


def test_links_equal_a_loop_and_give_each_region_to_one_slot():
    rng = np.random.default_rng(2)
    for _ in range(20):
        features, boxes = rng.normal(size=(4, 6, 5)), random_boxes(rng, 4, 6)
        order = link_regions(features, boxes)
        assert all(sorted(row) == list(range(6)) for row in order.tolist())
        taken = [set() for _ in range(4)]
        for slot in range(6):
            last = slot
            for frame in range(1, 4):
                scores = {}
                for r in sorted(set(range(6)) - taken[frame]):
                    a, b = features[frame - 1, last], features[frame, r]
                    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
                    scores[r] = cosine + overlaps(boxes[frame - 1, last][None], boxes[frame, r][None])[0, 0]
                last = max(scores, key=scores.get)
                taken[frame].add(last)
                assert order[frame, slot] == last


def test_shuffled_objects_are_found_again():
    rng = np.random.default_rng(3)
    features, boxes = rng.normal(size=(5, 32)), random_boxes(rng, 5)
    shuffles = [np.arange(5), *(rng.permutation(5) for _ in range(3))]
    moved = [boxes + 2.0 * frame for frame in range(4)]
    order = link_regions(
        np.stack([features[shuffle] + 0.05 * rng.normal(size=(5, 32)) for shuffle in shuffles]),
        np.stack([box[shuffle] for box, shuffle in zip(moved, shuffles, strict=True)]),
    )
    for shuffle, row in zip(shuffles, order, strict=True):
        assert shuffle[row].tolist() == list(range(5))


@pytest.mark.parametrize("num_frames", [34, 100, 333, 1000])
def test_frames_are_every_fourth_of_every_fourth_window(num_frames):
    """The release's own way: 32 windows of 16 frames, cut at the ends and filled up with the outermost frame."""
    windows = []
    for centre in np.linspace(0, num_frames, 34, dtype=np.int32)[1:33]:
        window = [min(max(number, 0), num_frames - 1) for number in range(centre - 8, centre + 8)]
        windows.append(window[::4])
    assert clip_frame_indices(num_frames).tolist() == windows[::4]


def test_a_video_with_fewer_frames_than_clips_is_refused():
    assert clip_frame_indices(8).shape == (8, 4)
    assert clip_frame_indices(8).max() == 7
    with pytest.raises(ValueError, match="fewer frames than clips: got 7, wanted at least 8"):
        clip_frame_indices(7)
