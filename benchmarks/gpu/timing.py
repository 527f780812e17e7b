"""Time and memory on the device: everything compared takes turns within one run."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch

MIN_ROUNDS, MAX_ROUNDS = 3, 20


def synchronize(device: str) -> None:
    """Wait until the device has done all its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Time one call, to the end of its work on the device."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def in_turns(works: Mapping[str, Callable[[], object]], device: str, *, seconds: float) -> dict[str, list[float]]:
    """Time all works in turns, round after round until `seconds` are over; one round before warms up."""
    for work in works.values():
        seconds_of(work, device)
    found: dict[str, list[float]] = {name: [] for name in works}
    end = time.perf_counter() + seconds
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.perf_counter() > end:
            break
        for name, work in works.items():
            found[name].append(seconds_of(work, device))
    return found


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, str]:
    """Return the median ratio over the rounds, and its range in words."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), spread(ratios)


def spread(values: list[float]) -> str:
    """Return lowest, highest and count in words."""
    return f"{min(values):.3g} to {max(values):.3g} in {len(values)} rounds"


def free_memory() -> None:
    """Give memory that no tensor holds back to the device."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def peak_mib(work: Callable[[], object]) -> float:
    """Return a second call's peak of GPU memory over the level before it, in MiB; the first one makes buffers."""
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def is_out_of_memory(error: Exception) -> bool:
    """Tell a lack of memory from other errors; some libraries of CUDA raise their own."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def largest_that_fits(try_size: Callable[[int], object], sizes: list[int]) -> int:
    """Return the last of growing sizes that the device has memory for; raises where the first has none."""
    found = None
    for size in sizes:
        try:
            try_size(size)
        except RuntimeError as error:
            if found is None or not is_out_of_memory(error):
                raise
            break
        finally:
            free_memory()
        found = size
    assert found is not None, "no size to try"
    return found


def doublings(first: int, last: int) -> list[int]:
    """Return first, 2 first, 4 first ... up to last."""
    sizes = [first]
    while 2 * sizes[-1] <= last:
        sizes.append(2 * sizes[-1])
    return sizes
