"""Perceptual hashes of a clip's frames, and clips that look alike by them, also after another encoder or size.

What is alike is one picture or one scene: a copy, a cut of the same recording, a camera that never moves. The hashes
(pHash, 64 bits) do not tell two people apart who do different things in the same room.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8, UInt64
from PIL import Image

FRAME_SIZE = 64  # pHash scales to 32 x 32
_HASH_SIDE = 8
NUM_BITS = _HASH_SIDE**2
# A frame of one shade has a hash of noise, and all dark frames have the same.
_MIN_CONTRAST = 8.0
_NEVER = 2 * NUM_BITS  # a distance that nothing comes near
_CLIPS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of clips, one row each; frames that are not `usable` are too plain to tell anything."""

    hashes: UInt64[np.ndarray, "clips frames"]
    usable: Bool[np.ndarray, "clips frames"]

    def __len__(self) -> int:
        return len(self.hashes)


def fingerprint(
    frames: UInt8[np.ndarray, "frames height width 3"],
) -> tuple[UInt64[np.ndarray, "frames"], Bool[np.ndarray, "frames"]]:
    """Return the hash of each frame, and whether it has enough contrast for one."""
    import imagehash  # with SciPy and PyWavelets: nobody else needs them

    pictures = [Image.fromarray(frame).convert("L") for frame in frames]
    bits = np.stack([imagehash.phash(picture, hash_size=_HASH_SIDE).hash.ravel() for picture in pictures])
    hashes = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return hashes, np.array([np.asarray(picture).std() >= _MIN_CONTRAST for picture in pictures])


def join_fingerprints(parts: list[Fingerprints]) -> Fingerprints:
    """Return the clips of all parts, in their order."""
    return Fingerprints(
        np.concatenate([part.hashes for part in parts]), np.concatenate([part.usable for part in parts])
    )


def find_alike(clips: Fingerprints, others: Fingerprints, *, max_distance: int) -> Iterator[tuple[int, int, int]]:
    """Yield (clip, the most alike of the others, distance in bits) of clips that look like another one.

    The distance of two clips is the larger of the two medians, over the frames of one, of the distance to the nearest
    frame of the other: clips of which less than half is in both are not alike. A clip with fewer than half of its
    frames usable is like nothing.
    """
    others_count = others.usable.sum(axis=1)
    tells = others_count * 2 >= others.usable.shape[1]
    for number in range(len(clips)):
        usable = clips.usable[number]
        if 2 * usable.sum() < len(usable):
            continue
        best, nearest = _NEVER, -1
        for start in range(0, len(others), _CLIPS_AT_ONCE):
            part = slice(start, start + _CLIPS_AT_ONCE)
            distances = _distances(clips.hashes[number][usable], others.hashes[part], others.usable[part])
            distances[~tells[part]] = _NEVER
            found = int(distances.argmin()) if len(distances) else 0
            if len(distances) and distances[found] < best:
                best, nearest = int(distances[found]), start + found
        if best <= max_distance:
            yield number, nearest, best


def _distances(
    hashes: UInt64[np.ndarray, "frames"],
    others: UInt64[np.ndarray, "clips other_frames"],
    usable: Bool[np.ndarray, "clips other_frames"],
) -> np.ndarray:
    """Return the distance of one clip to each of the others, (clips,)."""
    bits = np.bitwise_count(hashes[None, :, None] ^ others[:, None, :]).astype(np.float32)
    bits = np.where(usable[:, None, :], bits, _NEVER)
    of_ours = np.median(bits.min(axis=2), axis=1)
    nearest = np.where(usable, bits.min(axis=1), np.nan)
    of_theirs = np.full(len(others), float(_NEVER))
    some = usable.any(axis=1)
    of_theirs[some] = np.nanmedian(nearest[some], axis=1)
    return np.ceil(np.maximum(of_ours, of_theirs))
