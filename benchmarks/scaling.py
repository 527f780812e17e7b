"""What 100 million clips would take on 8 to 512 GPUs, by simulation: wall time, bottleneck, price; and training's CPUs.

.venv/bin/python benchmarks/scaling.py               # the results, as JSON, from the checked-in calibration (2 minutes)
.venv/bin/python benchmarks/scaling.py --figures     # the same, docs/figures/scaling_*.png and docs/scaling.md's tables
.venv/bin/python benchmarks/scaling.py --calibrate   # measure this machine and keep what was measured (3 minutes)
.venv/bin/python benchmarks/scaling.py --check       # small real jobs against their prediction (5 minutes)
.venv/bin/python benchmarks/scaling.py --limits      # what breaks, broken, and what no longer does (1 minute)

What could not be measured is in mama_ray/experiments/scaling/assumptions.yaml, with sources;
`--assume.gpu-hour-usd 2.5` and its like change it for one run.
"""

import json
import os
from dataclasses import dataclass, field

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a decode task and an engine have a core each

import tyro

from mama_ray.experiments.scaling.inputs import CALIBRATION, REALITY, Assumptions, load_assumptions, load_calibration
from mama_ray.experiments.scaling.page import PAGE, tables_of_measurements, tables_of_results, with_tables
from mama_ray.experiments.scaling.results import compute_results


@dataclass(frozen=True)
class Options:
    """What to do, and under which assumptions."""

    assume: Assumptions = field(default_factory=load_assumptions)
    num_clips: int = 100_000_000
    calibrate: bool = False
    check: bool = False
    figures: bool = False
    limits: bool = False


def main(options: Options) -> None:
    """Print the results as one JSON object, or measure what they rest on."""
    if options.calibrate:
        from mama_ray.experiments.scaling.calibrate import calibrate

        CALIBRATION.write_text(json.dumps(calibrate(), indent=1) + "\n")
        print(CALIBRATION.read_text())
    elif options.check:
        from mama_ray.experiments.scaling.reality import check_against_reality

        REALITY.write_text(json.dumps(check_against_reality(load_calibration()), indent=1) + "\n")
        print(REALITY.read_text())
    elif options.limits:
        from mama_ray.experiments.scaling.limits import show_limits

        print(json.dumps(show_limits(), indent=1))
    else:
        result = compute_results(options.assume, load_calibration(), options.num_clips)
        if options.figures:
            from mama_ray.experiments.scaling.figures import draw_figures

            draw_figures(result, options.assume, load_calibration(), PAGE.parent / "figures")
        print(json.dumps(result, indent=1))
    if options.calibrate or options.check or options.figures:
        tables = tables_of_measurements(load_calibration(), options.assume)
        if options.figures:
            tables |= tables_of_results(result)
        PAGE.write_text(with_tables(PAGE.read_text(), tables))


if __name__ == "__main__":
    main(tyro.cli(Options))
