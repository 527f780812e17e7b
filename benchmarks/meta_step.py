"""What a meta-optimised step costs: time and peak memory of each method over a plain step, the hypergradient's error.

    python benchmarks/meta_step.py [--preset small] [--batch 32] [--meta-batch 8] [--device cpu] [--rounds 5]

All methods see the same model and batches; they are timed interleaved, round by round, and reported as ratios of
medians within this one run. Memory is measured in a fresh process per method: the peak over the level before the step,
so model and batch do not count. `published` builds the second-order graph through the lookahead, as Meta-Weight-Net and
the MAMA release intend; it needs the math attention kernel.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mama_ray.config import with_overrides
from mama_ray.data.batch import ClipBatch
from mama_ray.models.clip_vip import ClipVip
from mama_ray.models.presets import preset
from mama_ray.objectives.contrastive import ContrastiveConfig
from mama_ray.weighting.features import FeatureModel
from mama_ray.weighting.inner_step import InnerStepConfig
from mama_ray.weighting.step import MetaConfig, WeightedStep
from mama_ray.weighting.weight_net import WeightingConfig, WeightNet, compute_sample_weights

SIZES = {
    "tiny": {},
    # Large enough that matrix products dominate, small enough for two cores.
    "small": {
        "video.width": 384, "video.num_layers": 6, "video.num_heads": 6, "text.width": 256, "text.num_layers": 6,
        "text.num_heads": 4, "dim": 256, "image_size": 96, "patch_size": 16, "vocab_size": 2000,
    },
}  # fmt: skip
METHODS = {
    "plain": None,
    "published (second-order graph)": "published",
    "second order, shared": ("second_order", "shared"),
    "forward mode, shared": ("forward_mode", "shared"),
    "forward mode, faithful": ("forward_mode", "faithful"),
    "finite difference, shared": ("finite_difference", "shared"),
    "finite difference, faithful": ("finite_difference", "faithful"),
}


class Case:
    """One method on one model and batch; calling it takes a step's gradients."""

    def __init__(self, method: str, args: argparse.Namespace, dtype: torch.dtype = torch.float32):
        torch.manual_seed(0)
        config = preset("tiny" if args.preset in SIZES else args.preset)
        model = ClipVip(with_overrides(config, SIZES.get(args.preset, {}))).to(args.device, dtype)
        self.batch, self.meta_batch = (make_batch(model, size, args.device) for size in (args.batch, args.meta_batch))
        net = WeightNet(64).to(args.device, dtype)
        self.how = METHODS[method]
        kind = "uniform" if self.how is None else "learned"
        options = (
            {}
            if self.how in (None, "published")
            else dict(zip(("hypergradient", "arrangement"), self.how, strict=True))
        )
        is_bf16 = args.device == "cuda" and dtype == torch.float32
        self.step = WeightedStep(
            FeatureModel(model),
            net,
            objective=ContrastiveConfig(margin=0.2),
            weighting_config=WeightingConfig(kind=kind),
            meta=MetaConfig(inner=InnerStepConfig(lr=0.01), **options),
            weight_optimizer=torch.optim.SGD(net.parameters(), lr=0.0),  # phi stays, so rounds are alike
            autocast=(lambda: torch.autocast("cuda", torch.bfloat16)) if is_bf16 else nullcontext,
        )

    def __call__(self) -> None:
        if self.how == "published":
            self.published()
        else:
            self.step.compute_gradients(self.batch, None if self.how is None else self.meta_batch)

    def published(self) -> None:
        """The second-order graph through theta', then the weighted backward pass with the graph that is there."""
        step, parameters = self.step, list(self.step.parameters.values())
        with sdpa_kernel(SDPBackend.MATH):
            losses = step._functional_losses(step.parameters, self.batch)
            weights = compute_sample_weights(step.weighting, losses.detach(), "sum_global")
            gradients = torch.autograd.grad((weights * losses).sum(), parameters, create_graph=True)
            ahead = {
                n: v - step.meta.inner.lr * g for (n, v), g in zip(step.parameters.items(), gradients, strict=True)
            }
            meta_loss = step._functional_losses(ahead, self.meta_batch).mean()
            hypergradient = torch.autograd.grad(meta_loss, list(step.weighting.parameters()))
        for parameter, gradient in zip(step.weighting.parameters(), hypergradient, strict=True):
            parameter.grad = gradient
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.detach()

    def hypergradient(self) -> torch.Tensor:
        self()
        return torch.cat([parameter.grad.flatten() for parameter in self.step.weighting.parameters()])


def make_batch(model: ClipVip, size: int, device: str) -> ClipBatch:
    config = model.config
    shape = (size, config.num_frames, config.image_size, config.image_size, 3)
    tokens = torch.randint(1, config.vocab_size - 1, (size, min(config.context_length, 24)))
    tokens[:, -1] = config.vocab_size - 1
    frames = torch.randint(0, 256, shape, dtype=torch.uint8)
    return ClipBatch(frames, tokens, torch.arange(size), torch.ones(size, dtype=torch.bool)).to(device)


def time_interleaved(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step and round; every method once per round, in turn, so that a slow spell hits all alike."""
    cases = {method: Case(method, args) for method in METHODS}
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    for number in range(args.rounds + 1):
        for method, case in cases.items():
            start = time.perf_counter()
            case()
            if args.device == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms caches up
                seconds[method].append(time.perf_counter() - start)
    return seconds


def measure_memory(method: str, args: argparse.Namespace, queue) -> None:
    """Put the step's peak memory in MiB over the level before it, in this fresh process."""
    torch.set_num_threads(args.threads)
    case = Case(method, args)
    if args.device == "cuda":
        case()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        case()
        queue.put((torch.cuda.max_memory_allocated() - before) / 2**20)
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case()
    case()
    queue.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def peak_memory(args: argparse.Namespace) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for method in METHODS:
        queue = context.SimpleQueue()
        process = context.Process(target=measure_memory, args=(method, args, queue))
        process.start()
        process.join()
        peaks[method] = queue.get()
    return peaks


def hypergradient_errors(args: argparse.Namespace) -> dict[str, float]:
    """Relative error against the published way in float64 (`error64`: exact methods to rounding) and in float32."""
    small = argparse.Namespace(**{**vars(args), "batch": min(args.batch, 8), "meta_batch": min(args.meta_batch, 4)})
    reference = Case("published (second-order graph)", small, torch.float64).hypergradient()
    errors = {}
    for method, how in METHODS.items():
        if how not in (None, "published"):
            for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
                ours = Case(method, small, dtype).hypergradient().double()
                errors[f"{method} {name}"] = float((ours - reference).norm() / reference.norm())
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", help="small, tiny, base_32 or base_16")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--meta-batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    peaks, errors, seconds = peak_memory(args), hypergradient_errors(args), time_interleaved(args)
    plain_s, plain_mib = statistics.median(seconds["plain"]), peaks["plain"]
    rows = {
        method: {
            "time_ratio": statistics.median(values) / plain_s,
            "time_ratio_range": [min(values) / plain_s, max(values) / plain_s],
            "memory_ratio": peaks[method] / plain_mib,
            "error_float64": errors.get(f"{method} float64"),
            "error_float32": errors.get(f"{method} float32"),
        }
        for method, values in seconds.items()
    }
    setting = {name: getattr(args, name) for name in ("preset", "batch", "meta_batch", "device", "threads", "rounds")}
    report = {"setting": setting, "plain_step_s": plain_s, "plain_peak_mib": plain_mib, "methods": rows}
    text = json.dumps(report, indent=1)
    if args.output:
        with open(args.output, "w") as file:
            file.write(text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
