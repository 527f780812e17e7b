"""A meta step over a plain one, and what compiling and the fused attention kernels give."""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.plain import Attention, attention_of
from benchmarks.gpu.rows import Row, absent, figure
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import bf16, build_case, build_model, build_training, training_step
from benchmarks.gpu.timing import free_memory, in_turns, is_out_of_memory, peak_mib, ratio, seconds_of
from benchmarks.meta_step_cases.cases import PLAIN, Case, Method, make_batch

SHARE = 0.25  # of the meta batch in the training batch
LAST_LAYERS = ("*_projection", "logit_scale")  # in every preset
METHODS = [
    Method("forward_mode", "shared", SHARE),
    Method("forward_mode", "shared", SHARE, 0.5),
    Method("forward_mode", "shared", SHARE, 0.25),
    Method("forward_mode", "shared", SHARE, moved=LAST_LAYERS),
    Method("forward_mode", "faithful", SHARE),
    Method("finite_difference", "shared", SHARE),
    Method("published", "faithful", SHARE),
]
# Frames, heads, tokens of a frame with the proxies, width of a head: ViT-B/32's.
_FRAMES_OF_A_CLIP = Attention((12, 12, 53, 64), (12, 12, 53, 64), torch.bfloat16, False, None)
# Those that a GPU has beside the plain products of MATH.
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}


def meta_step(setting: Setting, name: str) -> Iterator[Row]:
    """Measure time and memory of every way to take a meta step over a plain step on the same batch."""
    peaks, size = _memory(setting, name) if setting.is_gpu else ({}, setting.compared_batch)
    cases = {method: _case(setting, name, method, size) for method in [PLAIN, *METHODS]}
    times = in_turns({method.name: case for method, case in cases.items()}, setting.device, seconds=2 * setting.seconds)
    plain = times[PLAIN.name]
    yield figure("plain step's gradients", statistics.median(plain), "s", f"batch {size}, bf16")
    for method in METHODS:
        median, words = ratio(times[method.name], plain)
        yield figure(f"{method.name}: time over plain", median, "", words)
    if not peaks:
        yield absent("memory over plain", "benchmarks/meta_step.py measures it on a CPU")
        return
    yield figure("plain step's peak memory", peaks[PLAIN], "MiB", f"batch {size}; over model and batch")
    for method in METHODS:
        yield figure(f"{method.name}: memory over plain", peaks[method] / peaks[PLAIN], "", f"{peaks[method]:.0f} MiB")


def _case(setting: Setting, name: str, method: Method, size: int) -> Case:
    return build_case(name, method, size, setting.device, has_bf16=True)


def _memory(setting: Setting, name: str) -> tuple[dict[Method, float], int]:
    """Return each method's peak at the largest batch that all have room for, and that batch."""
    size = setting.compared_batch
    while True:
        try:
            peaks = {}
            for method in [METHODS[-1], PLAIN, *METHODS[:-1]]:  # the second order first: it needs the most
                peaks[method] = peak_mib(_case(setting, name, method, size))
                free_memory()
            return peaks, size
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        free_memory()
        size //= 2


def fused_attention(setting: Setting, name: str) -> Iterator[Row]:
    """Measure a plain step with every attention kernel over the step with plain products."""
    state = build_training(name, setting.device)
    step = training_step(state, setting.compared_batch, setting.device)

    def with_kernel(backend: SDPBackend) -> Callable[[], None]:
        def work() -> None:
            # Plain products for what the kernel cannot: a mask, which the last layer of the text tower has.
            with sdpa_kernel([backend, SDPBackend.MATH], set_priority=True):
                step()

        return work

    works: dict[str, Callable[[], object]] = {"torch's own choice": step}
    missing = {}
    for kernel, backend in KERNELS.items():
        try:
            with sdpa_kernel(backend):
                attention_of(_FRAMES_OF_A_CLIP, setting.device)()
            works[kernel] = with_kernel(backend)
        except RuntimeError as error:  # such a kernel needs another device
            missing[kernel] = str(error)
    times = in_turns({"math": with_kernel(SDPBackend.MATH)} | works, setting.device, seconds=setting.seconds)
    for kernel in works:
        median, words = ratio(times[kernel], times["math"])
        yield figure(f"attention by {kernel}: step over plain products", median, "", words)
    for kernel, reason in missing.items():
        yield absent(f"attention by {kernel}", reason)


def compiled(setting: Setting, name: str) -> Iterator[Row]:
    """Measure the model's forward and backward pass compiled over eager, and how long compiling takes."""
    model = build_model(name, setting.device)
    batch = make_batch(model, setting.compared_batch, setting.device)
    quick = torch.compile(model)

    def run(encode: Callable) -> None:
        with bf16(setting.device)():
            video, text = encode(batch.frames, batch.token_ids)
        (video * text).sum().backward()

    start = time.perf_counter()
    seconds_of(lambda: run(quick), setting.device)
    yield figure("torch.compile: first call", time.perf_counter() - start, "s")
    works = {"eager": lambda: run(model), "compiled": lambda: run(quick)}
    times = in_turns(works, setting.device, seconds=setting.seconds)
    median, words = ratio(times["compiled"], times["eager"])
    yield figure("torch.compile: forward and backward over eager", median, "", words)
