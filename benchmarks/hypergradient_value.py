"""What a hypergradient is worth over what it costs: recall of learned weights over CPU seconds of training, by option.

    python benchmarks/hypergradient_value.py --storage FOLDER [--seeds 1 2 3 4 5] [--options "batch 32, every 2" ...]
        [--minutes 60] [--output docs/measurements/hypergradient_value.json]

Every run is of the controlled study's set-up (configs/study/study.yaml: noisy captions, 1,500 clips, 264 steps of 64,
the study's pretrained model), on one thread. CPU seconds grow on a busy machine, too: run it on a quiet one, alone. The
options of one seed are run one after the other before the next seed begins, uniform weights and today's default first.
At the end of --minutes it tells what there is. Stopped, then or at any moment, and started again with the same FOLDER
it goes on: a run that is there is not made again.

Of each option: its seconds over those of uniform weights, the test t2v R@1 at the point chosen on val, paired
differences to uniform weights and to today's default over seeds (Student's 95 % interval), and the recall reached
within the seconds that uniform weights take for all steps. The last output is a table; all else is JSON.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from audit_cases.pairs import pretrained_model
from hypergradient_cases.options import OPTIONS, TODAY, UNIFORM
from hypergradient_cases.training import run, selected
from question_cases.data import write_pictures
from question_cases.report import interval_of, show
from question_cases.source_tree import commit, tell

from mama_ray.config import load_config, with_overrides
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.job import PretrainingConfig, StudyJob
from mama_ray.experiments.study.pretrain import num_frames_of

STUDY = Path(__file__).resolve().parents[1] / "configs" / "study" / "study.yaml"
Runs = dict[str, dict[int, dict[str, Any]]]


def cell_of(option: str, seed: int, args: argparse.Namespace) -> CellConfig:
    """Return the run of an option from a seed."""
    small = {}
    if args.num_train:
        splits = {"corpus.num_meta": 64, "corpus.num_val": 16, "corpus.num_test": 16, "meta_set.size": 64}
        small = splits | {"corpus.num_train": args.num_train, "num_steps": args.num_steps}
    return with_overrides(load_config(StudyJob, STUDY).cell, OPTIONS[option] | small | {"seed": seed})


def find(option: str, seed: int, args: argparse.Namespace, *, may_make: bool) -> dict[str, Any] | None:
    """Return what a run found, from its file where it has been made; None where it may not be made now."""
    cell = cell_of(option, seed, args)
    setting = cell.model_dump(mode="json")
    path = Path(args.storage) / "runs" / f"{option.replace(' ', '-').replace(',', '')}-{seed}.json"
    if path.exists() and (known := json.loads(path.read_text()))["setting"] == setting:
        return known
    if not may_make:
        return None
    storage = Path(args.storage)
    pretrained = pretrained_model(storage, args.num_pretraining_steps)
    frames = write_pictures(cell.seeded_corpus, storage / "noisy", num_frames=num_frames_of(PretrainingConfig()))
    found = run(cell, frames, pretrained) | {"setting": setting, "commit": args.commit}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(path)
    point = found["curve"][found["selected"]]
    tell({"option": option, "seed": seed, "cpu_s": found["cpu_s"], "t2v_R@1": point["test"]})
    return found


def make_runs(args: argparse.Namespace) -> Runs:
    """Make what is missing, as long as there is time; returns what there is, by option and seed."""
    end = time.monotonic() + 60 * args.minutes
    options = list(dict.fromkeys([UNIFORM, TODAY, *args.options]))
    runs: Runs = {option: {} for option in options}
    for seed in args.seeds:
        for option in options:
            found = find(option, seed, args, may_make=time.monotonic() < end)
            if found is not None:
                runs[option][seed] = found
    return runs


def recall_of(found: dict[str, Any], within_s: float | None = None) -> float:
    """Return the test recall at the point chosen on val, of those within so many seconds; of none the first's."""
    curve = [point for point in found["curve"] if within_s is None or point["cpu_s"] <= within_s]
    curve = curve or found["curve"][:1]
    return curve[selected(curve)]["test"]


def row_of(own: dict[int, dict], uniform: dict[int, dict], today: dict[int, dict]) -> dict[str, Any]:
    """Put an option's seeds together."""
    seeds = [seed for seed in own if seed in uniform]
    row: dict[str, Any] = {
        "seeds": seeds,
        "cpu_s": statistics.median(own[seed]["cpu_s"] for seed in seeds),
        "cost": statistics.median(own[seed]["cpu_s"] / uniform[seed]["cpu_s"] for seed in seeds),
        "t2v_R@1": interval_of([recall_of(own[seed]) for seed in seeds]),
        "over_uniform": interval_of([recall_of(own[seed]) - recall_of(uniform[seed]) for seed in seeds]),
        "within_uniforms_seconds": interval_of([recall_of(own[seed], uniform[seed]["cpu_s"]) for seed in seeds]),
        "curves": {seed: own[seed]["curve"] for seed in seeds},
    }
    both = [seed for seed in seeds if seed in today]
    if both:
        row["over_today"] = interval_of([recall_of(own[seed]) - recall_of(today[seed]) for seed in both])
    return row


def report_of(args: argparse.Namespace) -> dict[str, Any]:
    """Make the runs and put the seeds together."""
    runs = make_runs(args)
    made = {option: found for option, found in runs.items() if set(found) & set(runs[UNIFORM])}
    command = shlex.join(["python", "benchmarks/hypergradient_value.py", *sys.argv[1:]])
    return {
        "command": command.replace(args.storage, "FOLDER"),
        "commit": ", ".join(sorted({found["commit"] for of in runs.values() for found in of.values()})),
        "torch": torch.__version__,
        "num_missing": sum(len(args.seeds) - len(found) for found in runs.values()),
        "options": {option: row_of(found, runs[UNIFORM], runs[TODAY]) for option, found in made.items()},
    }


def table_of(report: dict[str, Any]) -> str:
    """Lay the report out as a table in Markdown."""
    lines = ["| option | CPU seconds over uniform | t2v R@1 | over uniform | over today's | within uniform's seconds |"]
    lines.append("|---|---|---|---|---|---|")
    for option, row in report["options"].items():
        over_today = show(row["over_today"], sign="+") if "over_today" in row and option != TODAY else ""
        over_uniform = "" if option == UNIFORM else show(row["over_uniform"], sign="+")
        cells = [option, f"{row['cost']:.2f}", show(row["t2v_R@1"]), over_uniform, over_today]
        lines.append(f"| {' | '.join([*cells, show(row['within_uniforms_seconds'])])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="folder of corpora, the pretrained model and finished runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--options", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    parser.add_argument("--minutes", type=float, default=1e6, help="no run begins after so long")
    parser.add_argument("--num_train", type=int, help="a trial: clips to learn from; the study's without")
    parser.add_argument("--num_steps", type=int, default=264, help="of a trial")
    parser.add_argument("--num_pretraining_steps", type=int, help="a trial; the study's model without")
    parser.add_argument("--output")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.commit = commit()  # of what has been imported: the tree may change while this trains
    report = report_of(args)
    text = json.dumps(report, indent=1)
    if args.output:
        Path(args.output).write_text(text + "\n")
    print(text)
    print(table_of(report))


if __name__ == "__main__":
    main()
