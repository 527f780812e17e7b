"""A plain training step: clips per second, its share of the chip's rate, and what bounds it."""

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.chip import peak_of, product_rate
from benchmarks.gpu.rows import Row, absent, figure
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import bf16, build_model, build_training, training_step
from benchmarks.gpu.timing import (
    doublings,
    free_memory,
    in_turns,
    is_out_of_memory,
    largest_that_fits,
    peak_mib,
    ratio,
    spread,
)
from benchmarks.meta_step_cases.cases import make_batch
from mama_ray.models.clip_vip.model import ClipVipConfig
from mama_ray.models.pretrained import preset


class Attention(NamedTuple):
    """The shapes of one call of the attention kernel."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    dtype: torch.dtype
    is_causal: bool
    mask: tuple[int, ...] | None


class _NotesAttention(TorchFunctionMode):
    """Keeps the shapes of every call of the attention kernel inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Attention] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            (queries, keys, *_), mask = args, kwargs.get("attn_mask")
            shapes = (tuple(queries.shape), tuple(keys.shape), queries.dtype, kwargs.get("is_causal", False))
            self.calls.append(Attention(*shapes, None if mask is None else tuple(mask.shape)))
        return func(*args, **kwargs)


def count_products(step: Callable[[], object]) -> tuple[float, float]:
    """Return a call's floating-point operations in matrix products, all and those inside attention."""
    with FlopCounterMode(display=False) as counter:
        step()
    by_operator = counter.get_flop_counts()["Global"]
    inside = sum(number for operator, number in by_operator.items() if "attention" in str(operator))
    return float(counter.get_total_flops()), float(inside)


def plain_step(setting: Setting, name: str) -> Iterator[Row]:
    """Measure the largest batch that fits, its step, and the floor of its products and attention kernels."""
    state = build_training(name, setting.device)
    # The largest that fits leaves the allocator no room, so sizes are tried as they are measured: twice.
    sizes = doublings(min(8, setting.max_batch), setting.max_batch)
    size = largest_that_fits(lambda size: [training_step(state, size, setting.device)() for _ in range(2)], sizes)
    step = training_step(state, size, setting.device)
    where = f"batch {size}, {state.model.config.num_frames} frames"
    total, inside = count_products(step)
    with _NotesAttention() as notes:
        step()
    seconds = in_turns({"step": step}, setting.device, seconds=setting.seconds)["step"]
    median_s = statistics.median(seconds)
    yield figure("clips per second", size / median_s, "clips/s", f"{where}; step {spread(seconds)} s")
    yield figure("operations of a clip", total / size / 1e9, "GFLOP", "all matrix products of the step")
    yield figure("rate", total / median_s / 1e12, "TFLOP/s")
    rate, _ = product_rate(setting)
    peak = peak_of(torch.cuda.get_device_name()) if setting.is_gpu else None
    yield figure("share of the measured product's rate", total / median_s / rate, "", f"{rate / 1e12:.1f} TFLOP/s")
    if peak is None:
        yield absent("share of the data sheet's peak", "no peak known for this device")
    else:
        yield figure("share of the data sheet's peak", total / median_s / peak, "", f"{peak / 1e12:.0f} TFLOP/s")
    if setting.is_gpu:
        yield figure("peak memory over model and batch", peak_mib(step), "MiB", where)
    del step, state
    free_memory()
    attention_s = attention_seconds(notes.calls, setting)
    floor_s = (total - inside) / rate + attention_s
    yield figure("attention kernels alone, share of the step", attention_s / median_s, "", f"{len(notes.calls)} calls")
    yield figure("step over its products and attention kernels alone", median_s / floor_s)


def attention_seconds(calls: list[Attention], setting: Setting) -> float:
    """Return the seconds of forward and backward of the attention kernels alone, at the shapes of a step."""
    total_s = 0.0
    for call in dict.fromkeys(calls):
        work = attention_of(call, setting.device)
        part_s = min(2.0, setting.seconds / 5)
        seconds = in_turns({"attention": work}, setting.device, seconds=part_s)["attention"]
        total_s += calls.count(call) * statistics.median(seconds)
        free_memory()
    return total_s


def attention_of(call: Attention, device: str) -> Callable[[], None]:
    """Bind random inputs of a call's shapes, laid out as the model's: heads side by side in the width."""

    def random(shape: tuple[int, ...]) -> Tensor:
        batch, heads, tokens, dim = shape
        values = torch.randn(batch, tokens, heads, dim, device=device, dtype=call.dtype)
        return values.transpose(1, 2).detach().requires_grad_()

    queries, keys, values = random(call.queries), random(call.keys), random(call.keys)
    mask = None if call.mask is None else torch.ones(call.mask, dtype=torch.bool, device=device)
    cotangent = torch.randn_like(queries)

    def work() -> None:
        output = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=call.is_causal)
        torch.autograd.grad(output, (queries, keys, values), cotangent)

    return work


def clip_tower(setting: Setting, name: str) -> Iterator[Row]:
    """Compare the video tower with transformers' CLIP image tower on the same patches, forward and backward."""
    size = min(256, setting.max_batch)
    while True:
        free_memory()
        try:
            times = _times_of_towers(setting, name, size)
            break
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        size //= 2
    median, words = ratio(times["ours"], times["theirs"])
    for which, tower in (("ours", "video tower"), ("theirs", "transformers' CLIP image tower")):
        yield figure(tower, size / statistics.median(times[which]), "clips/s", f"batch {size}, forward and backward")
    yield figure("video tower over CLIP's image tower, time", median, "", words)


def _times_of_towers(setting: Setting, name: str, size: int) -> dict[str, list[float]]:
    config = preset(name)
    ours = build_model(name, setting.device)
    theirs = build_clip_tower(config).to(setting.device)
    frames = make_batch(ours, size, setting.device).frames
    pixels = torch.randn(size * config.num_frames, 3, config.image_size, config.image_size, device=setting.device)

    def run(encode: Callable[[], Tensor]) -> None:
        with bf16(setting.device)():
            features = encode()
        features.float().square().mean().backward()

    works = {
        "ours": lambda: run(lambda: ours.vision_model(frames)),
        "theirs": lambda: run(lambda: theirs(pixels).pooler_output),
    }
    return in_turns(works, setting.device, seconds=setting.seconds)


def build_clip_tower(config: ClipVipConfig) -> torch.nn.Module:
    """Build transformers' image tower of a preset's size, with random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    video = config.video
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=video.width,
            intermediate_size=video.width * video.mlp_ratio,
            num_hidden_layers=video.num_layers,
            num_attention_heads=video.num_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
        )
    )
