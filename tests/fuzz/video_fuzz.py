"""Mutated videos through both readers, as training reads clips: each must be read or refused with one reason.

    python -m tests.fuzz.video_fuzz FOLDER --mutations 1000 --output results.jsonl [--limit-s 480]

Started again it goes on where it was stopped. Every mutation is a pure function of its number.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.guard import VideoGuard
from mama_ray.data.video.settings import DecodeConfig

READERS = ("pyav", "decord")
NUM_FRAMES = 4
_ENDED_BY_GUARD = ("crashed", "did not end", "too much memory", "takes too long")
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
_HEADER_BYTES = 4096  # of a file's beginning or end, where containers keep what is trusted most


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes of a video with one kind of damage."""
    kinds = (_flip_bits, _overwrite, _cut_off, _remove, _repeat, _set_large_number, _damage_header)
    return kinds[int(rng.integers(len(kinds)))](bytearray(data), rng)


def _place(data: bytearray, rng: np.random.Generator, size: int = 1) -> int:
    return int(rng.integers(max(1, len(data) - size)))


def _flip_bits(data: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 200))):
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _overwrite(data: bytearray, rng: np.random.Generator) -> bytes:
    size = int(rng.integers(1, max(2, len(data) // 4)))
    place = _place(data, rng, size)
    size = min(size, len(data) - place)
    random = bool(rng.integers(2))
    data[place : place + size] = rng.bytes(size) if random else bytes([int(rng.choice(_INTERESTING))]) * size
    return bytes(data)


def _cut_off(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: _place(data, rng)])


def _remove(data: bytearray, rng: np.random.Generator) -> bytes:
    place = _place(data, rng)
    del data[place : place + int(rng.integers(1, max(2, len(data) // 4)))]
    return bytes(data)


def _repeat(data: bytearray, rng: np.random.Generator) -> bytes:
    place = _place(data, rng)
    piece = data[place : place + int(rng.integers(1, max(2, len(data) // 4)))]
    return bytes(data[:place] + piece * int(rng.integers(2, 5)) + data[place:])


def _set_large_number(data: bytearray, rng: np.random.Generator) -> bytes:
    """Counts, sizes and times of containers are whole numbers of four or eight bytes."""
    for _ in range(int(rng.integers(1, 8))):
        size = int(rng.choice((2, 4, 8)))
        number = int(rng.choice((0, 1, 2**15, 2**16 - 1))) if size == 2 else int(rng.integers(2, 2 ** (8 * size - 2)))
        place = _place(data[:_HEADER_BYTES], rng, size)
        data[place : place + size] = number.to_bytes(size, "big" if rng.integers(2) else "little")
    return bytes(data)


def _damage_header(data: bytearray, rng: np.random.Generator) -> bytes:
    start = int(rng.choice((0, max(0, len(data) - _HEADER_BYTES))))
    for _ in range(int(rng.integers(1, 16))):
        place = start + _place(data[start : start + _HEADER_BYTES], rng)
        data[place] = int(rng.choice(_INTERESTING)) if rng.integers(2) else int(rng.integers(256))
    return bytes(data)


def outcome_of(guard: VideoGuard, video: bytes) -> tuple[str, str]:
    """Read a video as training does; return (kind, words), the kind read, refused, ended by the guard, or BUG."""
    try:
        frames = guard.sampled_frames(video, num_frames=NUM_FRAMES, size={"width": 64, "height": 64})
    except DecodeError as error:
        reason = str(error)
        if "\n" in reason or "Traceback" in reason:
            return "BUG", reason
        return ("ended by the guard" if any(words in reason for words in _ENDED_BY_GUARD) else "refused"), reason
    except Exception as error:
        return "BUG", f"{type(error).__name__}: {error}"
    return ("read", "") if frames.shape == (NUM_FRAMES, 64, 64, 3) else ("BUG", f"frames of shape {frames.shape}")


def peak_mib(guard: VideoGuard) -> float:
    """Return the most memory that the guard's child has held since it started, 0 while there is none."""
    try:
        status = Path(f"/proc/{guard.process_id}/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def fuzz(
    videos: Sequence[Callable[[], bytes]], numbers: Sequence[int], config: DecodeConfig, limit_s: float = float("inf")
) -> list[dict]:
    """Return what came of each (mutation, reader)."""
    rows, end = [], time.monotonic() + limit_s
    guards = {reader: VideoGuard(config.model_copy(update={"reader": reader})) for reader in READERS}
    try:
        for number in numbers:
            rng = np.random.default_rng(number)
            video = mutate(videos[number % len(videos)](), rng)
            for reader, guard in guards.items():
                began = time.monotonic()
                kind, words = outcome_of(guard, video)
                took_s = round(time.monotonic() - began, 2)
                row = {"number": number, "reader": reader, "kind": kind, "words": words, "took_s": took_s}
                rows.append(row | {"peak_mib": peak_mib(guard)})
            if time.monotonic() > end:
                break
    finally:
        for guard in guards.values():
            guard.close()
    return rows


def main() -> None:
    """Fuzz the videos of a folder and write one line per mutation and reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--limit-s", type=float, default=480.0)
    parser.add_argument("--timeout-s", type=float, default=20.0)
    args = parser.parse_args()
    paths = sorted(path for path in args.folder.rglob("*") if path.is_file() and path.stat().st_size)
    rows = [json.loads(line) for line in args.output.read_text().splitlines()] if args.output.exists() else []
    first = 1 + max((row["number"] for row in rows), default=-1)
    config = DecodeConfig(timeout_s=args.timeout_s, max_memory_gib=4.0)
    new = fuzz([path.read_bytes for path in paths], range(first, args.mutations), config, args.limit_s)
    with args.output.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in new)
    rows += new
    counts = Counter((row["reader"], row["kind"]) for row in rows)
    done = 1 + max((row["number"] for row in rows), default=-1)
    sys.stdout.write(f"{done} of {args.mutations} mutations of {len(paths)} videos\n")
    sys.stdout.writelines(f"{reader}: {count} {kind}\n" for (reader, kind), count in sorted(counts.items()))


if __name__ == "__main__":
    main()
