"""Do the weights find the faults? Pairs with swapped captions, scored by what a run recorded and by what people use.

    python benchmarks/audit.py --storage FOLDER [--seeds 1 2 3] [--output docs/measurements/audit.json]

One pair in five of the embedded corpus has the caption of another clip. Scores of a pair, low for a fault: the mean
weight that a learned run recorded, its loss and its cosine; the loss of a plain run; the cosine of the pretrained
encoder, as CLIP-score filters take it; how near the narrator's caption is to the given one, by the same encoder's text
tower. Then plain runs on what is left when the fifth of the pairs with the lowest scores is taken away, beside a plain
run on all pairs, a learned one, one with the narrator's captions in place of those taken away, and an oracle's.

All runs start from the controlled study's pretrained model and have its settings and equally many steps. A run that is
in FOLDER already is not made again. The last output is tables; all else is JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit_cases.pairs import Corpus, lists_of, load_corpus, pretrained_model, run_training, scores_before_training
from question_cases.report import interval_of, show
from question_cases.source_tree import commit, tell

from mama_ray.auditing.separation import lowest, precision_of_lowest, separation_auc
from mama_ray.config import with_overrides
from mama_ray.experiments.study.cell import CellConfig

SWAPPED = 0.2
NUM_WORST = 100
LEARNED = {"weighting.kind": "learned", "weighting.standardise": True}
# Of a run, what is taken away by which score; None takes nothing.
CLEANED = {
    "without lowest weight": "weight",
    "without highest loss": "loss, plain run",
    "without lowest cosine": "cosine, pretrained",
    "without farthest caption": "generated caption",
}
ARMS = ("plain", "learned", *CLEANED, "lowest weight mended", "oracle")


def cell_of(seed: int, args: argparse.Namespace) -> CellConfig:
    """Return a seed's run with uniform weights, in the study's settings."""
    corpus = {"num_train": args.num_train, "num_meta": 512, "num_val": 256, "num_test": 512}
    noise = {"swapped_rate": SWAPPED, "wrong_rate": 0.0, "incomplete_rate": 0.0}
    meta = {"meta_every": 2, "batch_size": 32, "lr": 1e-2, "inner": {"lr": 0.05}}
    settings = {"corpus": corpus | noise, "meta": meta, "num_steps": args.num_steps, "num_evaluations": 4, "seed": seed}
    return CellConfig.model_validate(settings)


def find(name: str, seed: int, args: argparse.Namespace, make: Any) -> dict:
    """Return what `make` gave with a seed, from its file where it has been made."""
    setting = cell_of(seed, args).model_dump(mode="json")
    path = Path(args.storage) / "runs" / f"{name.replace(' ', '-')}-{seed}.json"
    if path.exists() and (known := json.loads(path.read_text()))["setting"] == setting:
        return known
    started = time.process_time()
    found = make() | {"setting": setting, "commit": args.commit}
    found["cpu_s"] = round(time.process_time() - started, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def seed_of(seed: int, args: argparse.Namespace) -> dict[str, dict]:
    """Make the runs of a seed; returns what each found, and under `scores` those of all pairs."""
    storage = Path(args.storage)
    pretrained = pretrained_model(storage, args.num_pretraining_steps)
    cell = cell_of(seed, args)
    corpus = load_corpus(cell, storage, pretrained)
    runs: dict[str, dict] = {}
    before = find("before", seed, args, lambda: lists_of(scores_before_training(corpus, pretrained)))
    for arm in ("plain", "learned"):
        own = with_overrides(cell, LEARNED if arm == "learned" else {})
        runs[arm] = find(arm, seed, args, lambda own=own: recorded(own, corpus, pretrained))
        tell({"arm": arm, "seed": seed, "cpu_s": runs[arm]["cpu_s"], "t2v_R@1": runs[arm]["test"]["t2v_R@1"]})
    scores = scores_of(before, runs)
    for arm in ARMS[2:]:
        keep, mend = pairs_of(arm, scores, corpus)
        runs[arm] = find(
            arm, seed, args, lambda k=keep, m=mend: run_training(cell, corpus, pretrained, keep=k, mend=m)[0]
        )
        tell({"arm": arm, "seed": seed, "cpu_s": runs[arm]["cpu_s"], "t2v_R@1": runs[arm]["test"]["t2v_R@1"]})
    return runs | {"found": {name: separated(values, corpus.is_swapped) for name, values in scores.items()}}


def recorded(cell: CellConfig, corpus: Corpus, pretrained: Path) -> dict:
    """Train on all pairs; returns the metrics and what was recorded of each pair."""
    everything = np.arange(len(corpus.splits["train"]))
    found, record = run_training(cell, corpus, pretrained, keep=everything)
    return found | {"record": {part: lists_of(values) for part, values in record.means().items()}}


def scores_of(before: dict, runs: dict[str, dict]) -> dict[str, np.ndarray]:
    """Return the scores of all pairs by name, low for a fault."""
    learned, plain = (runs[arm]["record"] for arm in ("learned", "plain"))
    scores = {
        "weight": learned["all"]["weight"],
        "weight, last half": learned["last half"]["weight"],
        "loss, same run": learned["all"]["loss"],
        "loss, plain run": plain["all"]["loss"],
        "loss, plain run, last half": plain["last half"]["loss"],
        "cosine, same run": learned["all"]["cosine"],
        "cosine, pretrained": before["cosine"],
        "generated caption": before["caption"],
    }
    return {name: np.array(values) * (-1 if name.startswith("loss") else 1) for name, values in scores.items()}


def separated(scores: np.ndarray, is_faulty: np.ndarray) -> dict[str, float]:
    """Return how well a score tells the swapped pairs."""
    return {
        "auc": separation_auc(scores, is_faulty),
        "precision_100": 100 * precision_of_lowest(scores, is_faulty, NUM_WORST),
        "precision_fifth": 100 * precision_of_lowest(scores, is_faulty, int(is_faulty.sum())),
    }


def pairs_of(arm: str, scores: dict[str, np.ndarray], corpus: Corpus) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the places of the pairs that an arm learns from, and of those with the narrator's caption."""
    everything = np.arange(len(corpus.is_swapped))
    if arm == "oracle":
        return np.flatnonzero(~corpus.is_swapped), None
    num = round(SWAPPED * len(everything))
    if arm in CLEANED:
        return np.setdiff1d(everything, lowest(scores[CLEANED[arm]], num)), None
    return everything, lowest(scores["weight"], num)


def report_of(args: argparse.Namespace) -> dict:
    """Make the runs that are not there and put the seeds together."""
    seeds = {seed: seed_of(seed, args) for seed in args.seeds}
    names = list(next(iter(seeds.values()))["found"])
    found = {}
    for name in names:
        measured = [seeds[seed]["found"][name] for seed in args.seeds]
        found[name] = {key: interval_of([one[key] for one in measured]) for key in measured[0]}
    arms: dict[str, dict] = {}
    for arm in ARMS:
        arms[arm] = {}
        for metric in ("t2v_R@1", "v2t_R@1"):
            own, plain = ([seeds[seed][which]["test"][metric] for seed in args.seeds] for which in (arm, "plain"))
            over = [a - b for a, b in zip(own, plain, strict=True)]
            arms[arm][metric] = {"value": interval_of(own), "over_plain": interval_of(over)}
    ran = [seeds[seed][arm] for seed in args.seeds for arm in ARMS]
    return {
        "command": " ".join(["python", "benchmarks/audit.py", *sys.argv[1:]]).replace(args.storage, "FOLDER"),
        "commit": ", ".join(sorted({one["commit"] for one in ran})),
        "seeds": args.seeds,
        "setting": cell_of(args.seeds[0], args).model_dump(mode="json", exclude={"seed"}),
        "cpu_s": round(sum(one["cpu_s"] for one in ran)),
        "torch": torch.__version__,
        "scores": found,
        "arms": arms,
    }


def tables_of(report: dict) -> str:
    """Lay the report out as tables in Markdown."""
    lines = [f"| score | AUC | faults of the {NUM_WORST} lowest, % | of the lowest fifth, % |", "|---|---|---|---|"]
    for name, found in report["scores"].items():
        cells = [show(found["auc"], digits=2), show(found["precision_100"]), show(found["precision_fifth"])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| run | t2v R@1 | over plain | v2t R@1 | over plain |", "|---|---|---|---|---|"]
    for arm, found in report["arms"].items():
        cells = []
        for metric in found.values():
            cells += [show(metric["value"]), "" if arm == "plain" else show(metric["over_plain"], sign="+")]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="folder of corpora, the pretrained model and finished runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--num_train", type=int, default=1500)
    parser.add_argument("--num_steps", type=int, default=264)
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
    print(tables_of(report))


if __name__ == "__main__":
    main()
