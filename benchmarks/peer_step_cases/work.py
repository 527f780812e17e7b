"""Where the time of a step goes, by kind of work."""

from collections.abc import Callable

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

# Beginnings of operators' names; the first that fits counts. Attention is the kernel alone, without its projections.
KINDS = {
    "attention": ("_scaled_dot_product", "_flash", "_efficient", "_fused_sdp", "scaled_dot_product"),
    "optimiser": ("Optimizer.", "_foreach", "_fused_adam", "lerp_", "addcdiv_", "addcmul_", "sqrt"),
    "products": ("mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn", "convolution", "_convolution", "conv2d"),
    "norms": ("native_layer_norm", "layer_norm"),
    "activations": ("silu", "sigmoid", "gelu"),
    "copies": ("copy_", "clone", "_to_copy", "contiguous", "cat", "stack"),
}  # fmt: skip


def count_operations(work: Callable[[], object]) -> int:
    """Return the floating-point operations of one call in matrix products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def seconds_by_kind(work: Callable[[], object], device: str, *, repeats: int = 3) -> dict[str, float]:
    """Return the seconds of one call by kind, the least of some: each operator's own, without those that it calls."""
    found = [_seconds_by_kind(work, device) for _ in range(repeats)]
    return {kind: round(min(one[kind] for one in found), 4) for kind in found[0]}


def _seconds_by_kind(work: Callable[[], object], device: str) -> dict[str, float]:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        work()
    seconds = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in profiler.key_averages():
        if device == "cuda":
            if event.device_type == DeviceType.CUDA:
                continue  # kernels count where they were called
            own = event.self_device_time_total
        else:
            own = event.self_cpu_time_total
        seconds[_kind_of(event.key)] += own / 1e6
    return seconds


def _kind_of(operator: str) -> str:
    name = operator.removeprefix("aten::")
    return next((kind for kind, begins in KINDS.items() if name.startswith(begins)), "other")
