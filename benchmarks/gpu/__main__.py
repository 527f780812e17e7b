"""Check and measure this machine's GPU; ends within 8 minutes, prints one table last, and writes JSON as it goes.

    python3 -m benchmarks.gpu                                # make gpu-check is the same in .venv
    python3 -m benchmarks.gpu --device cpu --preset tiny     # the same program, small, on a CPU

Run it in the repository's root. Exit status 1: a check failed, broke off, or found no time.
"""

import argparse
import importlib.metadata
import importlib.util
import re
import signal
import sys
import time
from pathlib import Path

from benchmarks.gpu.cases import KINDS, choose_cases
from benchmarks.gpu.report import Report
from benchmarks.gpu.rows import Row
from benchmarks.gpu.setting import setting_for
from benchmarks.gpu.worker import Worker

# What the modules of the training step import, by import name and by name of the package; neither Ray nor vLLM.
NEEDED = {
    "torch": "torch", "numpy": "numpy", "pydantic": "pydantic", "yaml": "pyyaml", "einops": "einops",
    "jaxtyping": "jaxtyping", "safetensors": "safetensors", "pyarrow": "pyarrow", "fsspec": "fsspec",
    "transformers": "transformers", "pytest": "pytest",
}  # fmt: skip
OLDEST_TORCH = (2, 11)
RESERVE_S = 5.0  # for the end of the last case and the table


def what_is_missing() -> str | None:
    """Return words about packages that are not there or too old."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        return (
            f"missing Python packages: {', '.join(missing)}; install them, from a folder of wheels too: "
            f"python3 -m pip install --no-index --find-links WHEELS {' '.join(missing)}"
        )
    version = importlib.metadata.version("torch")
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST_TORCH:
        return f"torch: got {version}, wanted {'.'.join(map(str, OLDEST_TORCH))} or newer"
    return None


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", nargs="+", default=["base_32", "base_16"], help="the first one has all cases")
    parser.add_argument("--case", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--skip", nargs="+", choices=KINDS, default=[])
    parser.add_argument("--seconds-per-case", type=float, default=90.0, help="a case that takes longer is stopped")
    parser.add_argument("--limit-minutes", type=float, default=8.0)
    parser.add_argument("--max-batch", type=int, help="largest batch that is tried; 1024, and 8 on a CPU")
    parser.add_argument("--video", help="an H.264 file to decode on the GPU; made with av where that is installed")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu.json"))
    return parser.parse_args()


def main() -> int:
    """Run the cases one after another; returns the exit status."""
    began, args = time.monotonic(), parse()
    if words := what_is_missing():
        print(f"error: {words}", file=sys.stderr)
        return 2
    setting = setting_for(
        args.device, seconds_per_case=args.seconds_per_case, max_batch=args.max_batch, video=args.video
    )
    report, worker = Report(args.output, setting, args.preset), Worker(setting)
    end = began + 60 * args.limit_minutes - RESERVE_S
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worker ends, too
    try:
        report.record["machine"] = worker.facts(end)
        for case in choose_cases(args.preset, args.case, args.skip):
            if end - time.monotonic() < 1.0:
                report.add(case, Row(case.name, "not run", note="the time was up"))
                continue
            for row in worker.run(case, args.seconds_per_case, end):
                report.add(case, row)
    finally:
        worker.stop()
        holds = report.finish()
        print(report.table(), flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
