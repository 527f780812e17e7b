"""The plain training step beside open_clip's, of the same towers, pixels, texts and batch."""

import statistics
from collections.abc import Iterator

import torch

from benchmarks.gpu.rows import Row, absent, check, figure
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import bf16
from benchmarks.gpu.timing import free_memory, in_turns, is_out_of_memory, ratio
from benchmarks.peer_step_cases.pair import TOLERANCE, build_steps, check_same, with_frames
from benchmarks.peer_step_cases.peer import is_installed
from mama_ray.models.clip_vip.model import ClipVipConfig
from mama_ray.models.pretrained import preset

FRAMES = {1: 8, 12: 1}  # of a clip, and how many times the compared batch


def peer_step(setting: Setting, name: str) -> Iterator[Row]:
    """Check that both are the same with one frame, and time both in turns, in bf16."""
    if not is_installed():
        yield absent("open_clip's time over ours", "open-clip-torch is not installed")
        return
    config = preset(name)
    apart = check_same(with_frames(config, 1), 2, torch.float64)
    yield check("gradients, ours and open_clip's, float64", apart["gradient"], TOLERANCE[torch.float64])
    for frames, share in FRAMES.items():
        yield from _compared(setting, with_frames(config, frames), min(share * setting.compared_batch, 512))


def _compared(setting: Setting, config: ClipVipConfig, size: int) -> Iterator[Row]:
    while True:
        free_memory()
        try:
            steps, _ = build_steps(config, size, setting.device, bf16(setting.device))
            times = in_turns(steps, setting.device, seconds=setting.seconds)
            break
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        steps, size = {}, size // 2
    median, words = ratio(times["open_clip"], times["ours"])
    where = f"batch {size}, {config.num_frames} frame{'s' * (config.num_frames > 1)}"
    for which, own in times.items():
        yield figure(f"step, {which}", size / statistics.median(own), "clips/s", where)
    yield figure("open_clip's time over ours", median, "", f"{where}; {words}")
