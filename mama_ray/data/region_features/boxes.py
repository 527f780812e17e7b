"""Boxes of regions, and regions of one object found again from frame to frame.

Corners are (x1, y1, x2, y2) in pixels of the frame as it is shown, both ends included, as bottom-up attention has them.
"""

import numpy as np
from jaxtyping import Float, Int

NUM_BOX_NUMBERS = 5


def box_numbers(
    boxes: Float[np.ndarray, "*places 4"], *, width: float, height: float
) -> Float[np.ndarray, "*places 5"]:
    """Return each box as VGT reads it: x1/w, y1/h, x2/w, y2/h, and its area over the frame's; float32."""
    corners = np.asarray(boxes, np.float64)
    relative = corners / (width, height, width, height)
    area = _areas(corners) / (width * height)
    return np.concatenate([relative, area[..., None]], axis=-1).astype(np.float32)


def join_regions(
    features: Float[np.ndarray, "*places d"], boxes: Float[np.ndarray, "*places 4"], *, width: float, height: float
) -> Float[np.ndarray, "*places e"]:
    """Return VGT's regions: each feature with the five numbers of its box behind it, float32."""
    numbers = box_numbers(boxes, width=width, height=height)
    return np.concatenate([np.asarray(features, np.float32), numbers], axis=-1)


def link_regions(
    features: Float[np.ndarray, "frames r d"], boxes: Float[np.ndarray, "frames r 4"]
) -> Int[np.ndarray, "frames r"]:
    """Return which region of each frame goes to which slot, so that a slot is one object over the frames.

    Slots have the order of the first frame. One after the other they take from each next frame the region most like
    their last one, by cosine of the features plus IoU of the boxes, among those that no slot before has taken. VGT's
    own tool forgets what is taken, so there two slots may share a region; here a frame's row is a permutation.
    """
    num_frames, num_regions = boxes.shape[:2]
    unit = features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)
    likeness = [
        unit[frame] @ unit[frame + 1].T + overlaps(boxes[frame], boxes[frame + 1]) for frame in range(num_frames - 1)
    ]
    order = np.tile(np.arange(num_regions), (num_frames, 1))
    for slot in range(num_regions):
        for frame in range(num_frames - 1):
            best = int(likeness[frame][order[frame, slot]].argmax())
            order[frame + 1, slot] = best
            likeness[frame][:, best] = -np.inf
    return order


def overlaps(boxes: Float[np.ndarray, "r 4"], others: Float[np.ndarray, "s 4"]) -> Float[np.ndarray, "r s"]:
    """Return the intersection over the union of every pair."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.maximum(0.0, high - low + 1).prod(axis=-1)
    return shared / (_areas(boxes)[:, None] + _areas(others)[None] - shared)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0] + 1) * (boxes[..., 3] - boxes[..., 1] + 1)
