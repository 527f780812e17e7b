"""What 100 million clips would take on 8 to 512 GPUs, by simulation: wall time, bottleneck, price; and training's CPUs.

.venv/bin/python benchmarks/scaling.py               # the results, as JSON, from the checked-in calibration
.venv/bin/python benchmarks/scaling.py --figures     # the same, and docs/figures/*.png
.venv/bin/python benchmarks/scaling.py --calibrate   # measure this machine and keep what was measured (3 minutes)
.venv/bin/python benchmarks/scaling.py --check       # small real jobs against their prediction (5 minutes)
.venv/bin/python benchmarks/scaling.py --limits      # what breaks, broken, and what no longer does (1 minute)

What could not be measured is in mama_ray/experiments/scaling/assumptions.yaml, with sources;
`--assume.gpu-hour-usd 2.5` and its like change it for one run.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a decode task and an engine have a core each

import tyro

from mama_ray.experiments.scaling.inputs import (
    CALIBRATION,
    Assumptions,
    Remedies,
    caption_scenario,
    decode_cpus_per_gpu,
    decode_seconds,
    engine_rate,
    load_assumptions,
    load_calibration,
    read_seconds,
    train_scenario,
)
from mama_ray.experiments.scaling.pipeline import simulate
from mama_ray.experiments.scaling.sizes import captions_usd, corpus_sizes
from mama_ray.experiments.scaling.training import TrainRun, communication_s, simulate_training

_ROOT = Path(__file__).resolve().parents[1]
GPUS = (8, 16, 32, 64, 128, 256, 512)
AS_IT_IS = Remedies()
SPREAD_SHARDS = Remedies(num_prefixes=16)
# The driver is about half idle at 512 GPUs, there are more blocks than decode tasks; CPUs by the rule come on top.
ALL_REMEDIES = Remedies(num_prefixes=16, chunk_clips=128, max_blocks=65_536)
REALITY = CALIBRATION.with_name("reality.json")


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

            draw_figures(result, options.assume, load_calibration(), _ROOT / "docs" / "figures")
        print(json.dumps(result, indent=1))


def compute_results(assume: Assumptions, calibration: dict, num_clips: int) -> dict:
    """Return every table of docs/scaling.md."""
    missing = decode_rows(assume, calibration)[-1]["cpus_per_gpu"] - assume.decode_cpus_per_gpu
    remedies = {
        "as it is": AS_IT_IS,
        "shards in 16 folders": SPREAD_SHARDS,
        "all remedies": ALL_REMEDIES.model_copy(update={"extra_decode_cpus_per_gpu": max(0, missing)}),
    }
    return {
        **{
            f"captioning, {name}": [caption_row(assume, calibration, num_clips, gpus, own) for gpus in GPUS]
            for name, own in remedies.items()
        },
        "sizes": {name: float(f"{value:.4g}") for name, value in corpus_sizes(assume, calibration, num_clips).items()},
        "control plane": control_rows(assume, calibration),
        "decode CPUs per captioning GPU": decode_rows(assume, calibration),
        "training": [row for size in ("1280x720", "320x240") for row in train_rows(assume, calibration, size)],
    }


def caption_row(assume: Assumptions, calibration: dict, num_clips: int, num_gpus: int, remedies: Remedies) -> dict:
    """Simulate a job on demand and on spot nodes."""
    sizes = corpus_sizes(assume, calibration, num_clips)
    row: dict = {"gpus": num_gpus}
    for name, spot in (("on_demand", False), ("spot", True)):
        scenario = caption_scenario(
            assume, calibration, num_clips=num_clips, num_gpus=num_gpus, spot=spot, remedies=remedies
        )
        run = simulate(scenario)
        hours = run.wall_s / 3600
        cpu_hours = hours * num_gpus * remedies.extra_decode_cpus_per_gpu
        price = captions_usd(
            assume, sizes, gpu_hours=hours * num_gpus, cpu_hours=cpu_hours, num_clips=num_clips, spot=spot
        )
        row |= {f"{name}_hours": round(hours, 2), f"{name}_usd_per_million": round(price, 1)}
        if not spot:
            busy = {resource: round(share, 3) for resource, share in run.busy.items()}
            row |= {"clips_per_s": round(run.clips_per_s), "bottleneck": run.bottleneck, "busy": busy}
        else:
            row |= {"spot_losses": run.num_losses, "spot_clips_redone": run.clips_redone}
            row["spot_decode_hours_redone"] = round(run.decode_s_redone / 3600, 1)
    return row


def control_rows(assume: Assumptions, calibration: dict) -> list[dict]:
    """Return the driver's load at each size, and the chunk that keeps it half idle."""
    per_chunk_s = calibration["control"]["driver_cpu_s_per_chunk_8_engines"]
    rows = []
    for gpus in GPUS:
        chunks_per_s = gpus * engine_rate(assume, calibration) / AS_IT_IS.chunk_clips
        wanted = 2 * gpus * engine_rate(assume, calibration) * per_chunk_s
        rows.append({
            "gpus": gpus, "chunks_per_s": round(chunks_per_s, 1), "actor_calls_per_s": round(3 * chunks_per_s, 1),
            "driver_load": round(chunks_per_s * per_chunk_s, 2), "clips_per_chunk_for_half_load": round(wanted),
        })  # fmt: skip
    return rows


def decode_rows(assume: Assumptions, calibration: dict) -> list[dict]:
    """Return the rule's CPUs per GPU for clips of several sizes."""
    rate = engine_rate(assume, calibration)
    return [
        {
            "clips": f"{size}, 10 s", "decode_s": round(decode_seconds(calibration, size), 4),
            "read_s": round(read_seconds(assume, own["clip_mb"]), 4),
            "cpus_per_gpu": decode_cpus_per_gpu(
                rate, decode_seconds(calibration, size), read_seconds(assume, own["clip_mb"])
            ),
        }
        for size, own in calibration["decode"].items()
    ]  # fmt: skip


def train_rows(assume: Assumptions, calibration: dict, size: str) -> list[dict]:
    """Simulate training with the CPUs that GPU nodes have, and with those that the rule asks for."""
    rows = []
    rate = assume.train_clips_per_s_per_gpu
    if assume.meta_every:
        rate /= 1 + (assume.meta_step_ratio - 1) / assume.meta_every
    own = calibration["decode"][size]
    wanted = decode_cpus_per_gpu(
        rate, own["train_12_frames_s"] + own["hash_video_s"], read_seconds(assume, own["clip_mb"])
    )
    for gpus in (8, 64, 512):
        for cpus in (assume.decode_cpus_per_gpu, wanted):
            scenario = train_scenario(assume, calibration, num_gpus=gpus, decode_cpus=cpus, size=size)
            run: TrainRun = simulate_training(scenario)
            rows.append({
                "clips": size, "gpus": gpus, "decode_cpus_per_gpu": cpus, "clips_per_s": round(run.clips_per_s),
                "gpu_share": round(run.gpu_share, 3), "waiting_for_clips": round(run.waiting_share, 3),
                "communication_s_per_step": round(communication_s(scenario), 4),
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    main(tyro.cli(Options))
