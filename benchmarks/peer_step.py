"""A plain training step beside its peer: ours and open_clip's, of the same towers, pixels, texts and batch, in turns.

    .venv/bin/python benchmarks/peer_step.py --output docs/measurements/peer_step.json     # on a CPU that is idle
    .venv/bin/python benchmarks/peer_step.py --device cuda --batch 512 64 --rounds 20      # bf16 on a GPU

Both take InfoNCE and AdamW, with clipped gradients; the peer's pixels come normalised, as its loader hands them over,
ours as bytes. With one frame ours is CLIP, and before anything is timed both are given the same weights: loss and
gradients must agree. With more frames the peer takes each for an image of its own and averages their features; our
video tower lets them see each other. Prints JSON: seconds of a step (on a CPU those of the CPUs, which other work on
the machine changes less), the peer's over ours (above 1 ours is faster), median and range of the rounds; the same
for the gradients alone, without clipping and AdamW; operations in matrix products, which nothing changes; and the
seconds of a step by kind of work, the least of three, which only a machine that is idle tells.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from peer_step_cases.pair import TOLERANCE, build_steps, check_same, with_frames
from peer_step_cases.work import count_operations, seconds_by_kind

from mama_ray.config import with_overrides
from mama_ray.models.clip_vip.model import ClipVipConfig
from mama_ray.models.pretrained import preset


def compare(config: ClipVipConfig, size: int, args: argparse.Namespace) -> dict:
    """Time both steps in turns."""
    autocast = (lambda: torch.autocast("cuda", torch.bfloat16)) if args.device == "cuda" else nullcontext
    steps, gradients = build_steps(config, size, args.device, autocast)
    parts = {"step": steps, "gradients": gradients}
    works = {(part, name): work for part, own in parts.items() for name, work in own.items()}
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in works}
    for number in range(args.rounds + 1):
        for name in sorted(works, reverse=number % 2 == 1):
            taken = seconds_of(works[name], args.device)
            if number:  # the first makes the optimiser's state
                seconds[name].append(taken)
    found: dict = {"batch": size}
    for part in parts:
        ours, theirs = seconds[part, "ours"], seconds[part, "open_clip"]
        ratios = [other / one for one, other in zip(ours, theirs, strict=True)]
        found[f"{part}, s"] = {"ours": statistics.median(ours), "open_clip": statistics.median(theirs)}
        found[f"{part}, open_clip's time over ours"] = statistics.median(ratios)
        found[f"{part}, range"] = [min(ratios), max(ratios)]
    found["clips per second"] = {name: size / taken for name, taken in found["step, s"].items()}
    found["operations in products, GFLOP"] = {name: count_operations(work) / 1e9 for name, work in gradients.items()}
    found["seconds by kind of work"] = {name: seconds_by_kind(work, args.device) for name, work in steps.items()}
    return found


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Time one call: on a CPU the time of the CPUs, on a GPU to the end of its work there."""
    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Check, measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base_32", help="tiny, base_32 or base_16")
    parser.add_argument("--layers", type=int, help="of both towers; default the preset's")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[8, 2], help="clips of a batch, for each number of frames"
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 12])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = preset(args.preset)
    if args.layers:
        config = with_overrides(config, {"video.num_layers": args.layers, "text.num_layers": args.layers})
    report: dict = {"setting": {name: value for name, value in vars(args).items() if name != "output"}}
    report["torch"] = torch.__version__
    clip, few = with_frames(config, 1), min(args.batch[0], 4)
    report["relative difference"] = {
        str(dtype).removeprefix("torch."): check_same(clip, few, dtype) for dtype in TOLERANCE
    }
    for frames, size in zip(args.frames, args.batch, strict=True):
        report[f"{frames} frame{'s' * (frames > 1)}"] = compare(with_frames(config, frames), size, args)
    text = json.dumps(report, indent=1)
    if args.output:
        args.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
