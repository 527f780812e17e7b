"""What a meta-optimised step costs: time and peak memory over a plain step, and the hypergradient's error.

    python benchmarks/meta_step.py [--preset small] [--batch 16] [--device cpu] [--rounds 3] [--shares 0.25 1]
        [--kinds published difference forward_mode finite_difference]
    python benchmarks/meta_step.py --device cuda --preset base_32 --batch 128        # bf16 autocast
    python benchmarks/meta_step.py --lora 8 [--targets "*.layers.[45].self_attn" --trained logit_scale]
    python benchmarks/meta_step.py --freeze vision_model visual_projection
    python benchmarks/meta_step.py --tangent-shares 1 0.5 0.25 --moved "*.layers.[45]" "*_projection" logit_scale

Every method sees the same model and batches (meta batches: a quarter of the training batch, and one of its size). They
take turns within a round, a plain step after every third; a ratio is over the median plain step of its round, and
the table has the median over the rounds with the lowest and the highest. `every k` is k - 1 plain steps and a meta
step over k plain ones, from these times. With one thread on a CPU, times are CPU seconds. Memory is measured in a fresh
process per method: the peak over the level before the step, so model and batch do not count; `copies` is what it has
over the plain step in copies of the parameters. Errors are over the second-order graph in float64, on a smaller batch.
Products are the multiplications in a step's products over those of a plain step (CPU), batch 8, without a clock.
An estimate from a part of the tangents has the error of one draw; a lookahead that moves --moved alone is exact for
that and is compared with one that moves all. With --lora or --freeze every step, the plain one too, trains that part of
the model alone. The last output is a table; all else is JSON.
"""

import argparse
import json
import math
import multiprocessing
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from meta_step_cases.cases import KINDS, PLAIN, Case, Method
from meta_step_cases.products import ProductCount

from mama_ray.models.settings import LoraConfig

MEBI = 2**20
EVERY = (1, 2, 4, 10)
PLAIN_AFTER_EVERY = 3
PRECISIONS = {"float64": (torch.float64, False), "float32": (torch.float32, False), "bf16": (torch.float32, True)}


def methods_of(args: argparse.Namespace) -> list[Method]:
    """List every method for every size of the meta batch."""
    methods = []
    for share in args.shares:
        for kind, arrangement in KINDS:
            if kind in args.kinds:
                of_tangents = args.tangent_shares if kind == "forward_mode" else [1.0]
                methods += [Method(kind, arrangement, share, tangents) for tangents in of_tangents]
        if args.moved:
            methods.append(Method("forward_mode", "shared", share, moved=tuple(args.moved)))
    return methods


def build_case(method: Method, args: argparse.Namespace, batch_size: int | None = None, **precision) -> Case:
    """Make a case in the precision that training has on the device, unless another is asked for."""
    precision = precision or {"has_bf16": args.device == "cuda"}
    size = args.batch if batch_size is None else batch_size
    lora = LoraConfig(rank=args.lora, targets=args.targets, trained=args.trained) if args.lora else None
    part = {"lora": lora, "freeze": args.freeze}
    return Case(method, preset_name=args.preset, batch_size=size, device=args.device, **part, **precision)


def time_interleaved(args: argparse.Namespace) -> tuple[float, dict[Method, list[float]]]:
    """Return the seconds of a plain step and each method's ratios, one per round."""
    plain, cases = build_case(PLAIN, args), {method: build_case(method, args) for method in methods_of(args)}
    ratios: dict[Method, list[float]] = {method: [] for method in methods_of(args)}
    plain_s = []
    for number in range(args.rounds + 1):
        of_plain, of_method = [seconds_of(plain, args)], {}
        for position, (method, case) in enumerate(cases.items(), start=1):
            of_method[method] = seconds_of(case, args)
            if position % PLAIN_AFTER_EVERY == 0:
                of_plain.append(seconds_of(plain, args))
        if number:  # the first round warms caches up
            plain_s.append(statistics.median(of_plain))
            for method, seconds in of_method.items():
                ratios[method].append(seconds / plain_s[-1])
    return statistics.median(plain_s), ratios


def seconds_of(case: Case, args: argparse.Namespace) -> float:
    """Time one step."""
    clock = clock_of(args)
    start = clock()
    case()
    if args.device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """Choose CPU seconds for a single thread: other work on the machine changes them less than wall time."""
    return time.process_time if args.threads == 1 and args.device == "cpu" else time.perf_counter


def measure_memory(method: Method, args: argparse.Namespace, queue) -> None:
    """Put the step's peak memory in MiB over the level before it, and that of the parameters, in this fresh process."""
    torch.set_num_threads(args.threads)
    case = build_case(method, args)
    of_parameters = sum(value.numel() * value.element_size() for value in case.step.parameters.values()) / MEBI
    if args.device == "cuda":
        case()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        case()
        queue.put(((torch.cuda.max_memory_allocated() - before) / MEBI, of_parameters))
        return
    # getrusage would give the peak of the process that started this one, where that is higher.
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident_peak_mib()
    case()
    queue.put((resident_peak_mib() - before, of_parameters))


def resident_peak_mib() -> float:
    """Return the peak of this process's resident memory (Linux)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def peak_memory(args: argparse.Namespace) -> tuple[dict[Method, float], float]:
    """Return each method's peak and the size of the parameters, in MiB."""
    if "memory" in args.without:
        return dict.fromkeys([PLAIN, *methods_of(args)], math.nan), math.nan
    context, peaks, of_parameters = multiprocessing.get_context("spawn"), {}, 0.0
    for method in [PLAIN, *methods_of(args)]:
        queue = context.SimpleQueue()
        process = context.Process(target=measure_memory, args=(method, args, queue))
        process.start()
        peaks[method], of_parameters = queue.get()
        process.join()
    return peaks, of_parameters


def hypergradient_errors(args: argparse.Namespace) -> dict[Method, dict[str, float]]:
    """Return relative errors over the second-order graph in float64, by precision."""
    if "errors" in args.without:
        return {method: dict.fromkeys(PRECISIONS, math.nan) for method in methods_of(args)}
    size, errors, references = min(args.batch, 8), {}, {}
    for method in methods_of(args):
        share = method.meta_share
        if share not in references:
            published = Method("published", "faithful", share)
            references[share] = build_case(published, args, size, dtype=torch.float64).hypergradient()
        reference = references[share]
        errors[method] = {}
        for name, (dtype, has_bf16) in PRECISIONS.items():
            ours = build_case(method, args, size, dtype=dtype, has_bf16=has_bf16).hypergradient().double()
            errors[method][name] = float((ours - reference).norm() / reference.norm())
    return errors


def count_products(method: Method, args: argparse.Namespace) -> int:
    """Return the multiplications in the products of a step with a batch of eight: no clock, no noise."""
    case = build_case(method, args, 8)
    with ProductCount() as count:
        case()
    return count.total


def report_of(args: argparse.Namespace) -> dict:
    """Measure everything."""
    plain_s, ratios = time_interleaved(args)
    tell({method.name: values for method, values in ratios.items()})
    peaks, of_parameters = peak_memory(args)
    tell({method.name: peak for method, peak in peaks.items()})
    errors = hypergradient_errors(args)
    plain_products = count_products(PLAIN, args)
    rows = {}
    for method, values in ratios.items():
        every = {k: [1 + (value - 1) / k for value in values] for k in EVERY}
        rows[method.name] = {
            "time_ratio": {k: statistics.median(of_k) for k, of_k in every.items()},
            "time_ratio_range": {k: [min(of_k), max(of_k)] for k, of_k in every.items()},
            # A model too small for its step to show beside what the imports took at their peak has no ratio.
            "memory_ratio": peaks[method] / peaks[PLAIN] if peaks[PLAIN] > 0 else math.nan,
            "memory_over_plain_and_a_copy": peaks[method] / (peaks[PLAIN] + of_parameters),
            "product_ratio": count_products(method, args) / plain_products,
            "error": errors[method],
        }
    root = Path(__file__).resolve().parents[1]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "mama_ray"], cwd=root).returncode != 0
    return {
        "command": shlex.join(["python", "benchmarks/meta_step.py", *_without_output(sys.argv[1:])]),
        "commit": commit + (" with changes" if changed else ""),
        "setting": {name: value for name, value in vars(args).items() if name != "output"},
        "torch": torch.__version__,
        "plain_step_s": plain_s,
        "plain_peak_mib": peaks[PLAIN],
        "parameters_mib": of_parameters,
        "methods": rows,
    }


def _without_output(words: list[str]) -> list[str]:
    """Leave out where the record goes, which is a place on this machine."""
    place = words.index("--output") if "--output" in words else len(words)
    return words[:place] + words[place + 2 :]


def tell(part: dict) -> None:
    """Show a part of a long run as soon as it is there."""
    print(json.dumps(part), file=sys.stderr, flush=True)


def table_of(report: dict) -> str:
    """Lay the report out as a table in Markdown."""
    copy, plain = report["parameters_mib"], report["plain_peak_mib"]
    lines = [
        "| method | products | every step | every 2nd | every 4th | every 10th | memory | copies | "
        "error float64 | float32 | bf16 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in report["methods"].items():
        ratio, (low, high) = row["time_ratio"], row["time_ratio_range"][1]
        extra = (row["memory_ratio"] - 1) * plain / copy
        cells = [
            name,
            f"{row['product_ratio']:.2f}",
            f"{ratio[1]:.2f} ({low:.2f}-{high:.2f})",
            *(f"{ratio[k]:.2f}" for k in EVERY[1:]),
        ]
        cells += [f"{row['memory_ratio']:.2f}", f"{extra:+.1f}"]
        cells += [f"{row['error'][precision]:.0e}" for precision in PRECISIONS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", help="small, tiny, base_32 or base_16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 1.0], help="meta batch over training batch")
    kinds = list(dict.fromkeys(kind for kind, _ in KINDS))
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--without", nargs="+", choices=["memory", "errors"], default=[], help="what is not measured")
    parser.add_argument("--tangent-shares", type=float, nargs="+", default=[1.0], help="of the clips, in forward mode")
    parser.add_argument("--moved", nargs="+", default=[], help="patterns of what one more lookahead moves")
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters; 0 trains the weights")
    parser.add_argument("--targets", nargs="+", help="patterns of the layers that get adapters; default attention")
    parser.add_argument("--trained", nargs="+", help="patterns of what is trained beside adapters")
    parser.add_argument("--freeze", nargs="+", default=[], help="patterns of parameters that are not trained")
    parser.add_argument("--output")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report = report_of(args)
    text = json.dumps(report, indent=1)
    if args.output:
        Path(args.output).write_text(text + "\n")
    print(text)
    print(f"plain step: {report['plain_step_s']:.3f} s, {report['plain_peak_mib']:.0f} MiB; ratios over it")
    print(table_of(report))


if __name__ == "__main__":
    main()
