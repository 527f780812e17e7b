"""Copies have near hashes whatever was done to them, others have far ones, and plain frames tell nothing."""

import numpy as np
import pytest
from PIL import Image

from mama_ray.data.video.fingerprint import Fingerprints, find_alike, fingerprint, join_fingerprints

NUM_FRAMES = 6


def scene(seed: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """Return frames of blurred blotches that move: (frames, height, width, 3)."""
    rng = np.random.default_rng(seed)
    blotches = [Image.fromarray(rng.integers(0, 256, (5, 7), np.uint8)) for _ in range(2)]
    one, two = (np.asarray(blotch.resize(size, Image.Resampling.BICUBIC), np.float32) for blotch in blotches)
    grey = [(1 - part) * one + part * two for part in np.linspace(0, 1, NUM_FRAMES)]
    return np.repeat(np.stack(grey)[..., None], 3, axis=3).astype(np.uint8)


def resized(frames: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(frame).resize((48, 32))) for frame in frames])


def marked(frames: np.ndarray) -> np.ndarray:
    copy = frames.copy()
    copy[:, 2:10, 2:14] = 255
    return copy


def noisy(frames: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(9).normal(0, 8, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def darker(frames: np.ndarray) -> np.ndarray:
    return (frames * 0.7 + 10).astype(np.uint8)


def of(*clips: np.ndarray) -> Fingerprints:
    hashes, usable = zip(*(fingerprint(frames) for frames in clips), strict=True)
    return Fingerprints(np.stack(hashes), np.stack(usable))


@pytest.mark.parametrize("change", [resized, marked, noisy, darker])
def test_a_copy_is_found_among_others(change):
    others = of(*(scene(seed) for seed in range(20)))
    found = list(find_alike(of(change(scene(7)), change(scene(13))), others, max_distance=8))
    assert [(row, other) for row, other, _ in found] == [(0, 7), (1, 13)]
    assert list(find_alike(of(change(scene(77))), others, max_distance=8)) == []


def test_frames_in_another_order_are_alike_and_a_clip_that_shares_less_than_half_is_not():
    clip, other = scene(1), scene(2)
    (found,) = find_alike(of(clip[::-1]), of(other, clip), max_distance=8)
    assert found == (0, 1, 0)
    mixed = np.concatenate([clip[:2], other[2:]])
    assert list(find_alike(of(mixed), of(clip), max_distance=8)) == []


def test_plain_frames_are_like_nothing():
    black = np.zeros((NUM_FRAMES, 64, 64, 3), np.uint8)
    fade = np.concatenate([black[:, :64, :96][:, :, :64], scene(3, (64, 64))[:1]])[:NUM_FRAMES]
    assert not of(black).usable.any()
    assert list(find_alike(of(black), of(black, fade), max_distance=31)) == []
    assert list(find_alike(of(scene(3, (64, 64))), of(black, fade), max_distance=8)) == []


def test_the_distance_is_that_of_its_definition():
    """The fast form against a double loop, with frames that do not count."""
    rng = np.random.default_rng(0)
    clips, others = (
        Fingerprints(rng.integers(0, 1 << 63, (n, 5), np.uint64), rng.random((n, 5)) < 0.8) for n in (6, 9)
    )
    wanted = []
    for row in range(6):
        best = (129, -1)
        for other in range(9):
            ours = [int(h) for h, ok in zip(clips.hashes[row], clips.usable[row], strict=True) if ok]
            theirs = [int(h) for h, ok in zip(others.hashes[other], others.usable[other], strict=True) if ok]
            if 2 * len(ours) < 5 or 2 * len(theirs) < 5:
                continue
            bits = np.array([[(one ^ two).bit_count() for two in theirs] for one in ours])
            distance = int(np.ceil(max(np.median(bits.min(axis=1)), np.median(bits.min(axis=0)))))
            best = min(best, (distance, other))
        if best[0] <= 31:
            wanted.append((row, best[1], best[0]))
    assert list(find_alike(clips, others, max_distance=31)) == wanted
    assert len(wanted) > 3


def test_parts_are_joined_in_their_order():
    parts = [of(scene(seed)) for seed in range(3)]
    joined = join_fingerprints(parts)
    assert len(joined) == 3
    assert (joined.hashes[2] == parts[2].hashes[0]).all()
