"""What answering questions learns from pixels, whether weights find wrong answers, and what MAMA's terms add.

    python benchmarks/question_learning.py --storage FOLDER [--seeds 0 1 2] [--models clip_vip violet]
        [--parts twins swapped methods] [--output docs/measurements/question_learning.json]

The tiny CLIP-ViP with the head for questions and the tiny VIOLET, which answers by itself, learn the questions of the
embedded corpus (`data/synthetic/quiz.py`), one corpus per seed.

* twins: each model beside its twin without pixels: the same training, but every clip, of training and of test, is one
  grey picture. Other clips' frames in their place would be noise to memorise, and so an easier twin to beat.
* swapped: learned weights where a share of the training answers is wrong; the area under the ROC curve is how often a
  pair with a swapped answer weighs less than one without.
* methods: learned weights, margin and task loss alone against uniform weights and no margin, with and without
  swapped answers, at equal data and steps.

Nothing is chosen on test: it is measured once, after the last step. A run that is in FOLDER already is not made again.
The last output is tables; all else is JSON.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from question_cases.case import METHODS, MODELS, MetaSizes, Sizes, run_case
from question_cases.data import load_corpus, write_pictures
from question_cases.report import methods_of, table_of, twins_of
from question_cases.source_tree import commit, tell

from mama_ray.data.synthetic.config import CorpusConfig

PARTS = ("twins", "swapped", "methods")
UNIFORM, FINDS_SWAPS = "uniform", "learned_task"


@dataclass(frozen=True)
class Run:
    """What tells one run from the others of a call."""

    model: str
    method: str
    swapped: float
    sees: bool
    num_steps: int
    seed: int


def runs_of(args: argparse.Namespace) -> list[Run]:
    """List the runs of the parts, each once, what matters most first."""
    return list(dict.fromkeys(run for part in args.parts for run in _runs_of_part(part, args)))


def _runs_of_part(part: str, args: argparse.Namespace) -> Iterator[Run]:
    for model in args.models:
        num_steps = args.num_steps or MODELS[model].num_steps
        for seed in args.seeds:
            if part == "twins":
                yield Run(model, UNIFORM, 0.0, True, num_steps, seed)
                yield Run(model, UNIFORM, 0.0, False, num_steps, seed)
            elif part == "swapped":
                yield Run(model, FINDS_SWAPS, args.swapped, True, num_steps, seed)
            elif model in args.method_models:
                for swapped in (0.0, args.swapped):
                    yield from (Run(model, name, swapped, True, num_steps, seed) for name in args.methods)


def corpus_of(seed: int, args: argparse.Namespace) -> CorpusConfig:
    """Return the embedded corpus of a seed, captions as noisy as they are by default."""
    return CorpusConfig(
        level=args.level,
        seed=seed,
        num_train=args.num_train,
        num_meta=args.num_meta,
        num_val=args.num_val,
        num_test=args.num_test,
    )


def find(run: Run, args: argparse.Namespace) -> dict:
    """Return what a run found, from its file where it has been made."""
    model, method, corpus = MODELS[run.model], METHODS[run.method], corpus_of(run.seed, args)
    sizes = Sizes(run.num_steps, args.batch, MetaSizes(args.meta_batch, args.meta_lr))
    meta = asdict(sizes.meta) if method.is_learned else {}  # the others have no use for them
    recipe = {"lr": model.lr, "questions_per_clip": model.questions_per_clip}
    setting = {**asdict(run), "recipe": recipe, "corpus": corpus.model_dump(mode="json"), "batch": args.batch}
    setting |= {"meta": meta}
    name = "-".join(str(value) for value in (*asdict(run).values(), args.level, args.batch, *meta.values()))
    path = Path(args.storage) / "runs" / f"{name}.json"
    if path.exists() and (known := json.loads(path.read_text()))["setting"] == setting:
        return known
    started = time.process_time()
    frames = write_pictures(corpus, Path(args.storage), num_frames=model.num_frames)
    asked = load_corpus(corpus, frames, kind=model.tokenizer, swapped_answers=run.swapped)
    found = run_case(asked, model, method, sizes, seed=run.seed, sees=run.sees)
    found |= {"setting": setting, "commit": args.commit, "cpu_s": round(time.process_time() - started, 1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1))
    return found


def report_of(args: argparse.Namespace) -> dict:
    """Make the runs that are not there and compare them."""
    runs: dict[tuple, dict[int, dict]] = defaultdict(dict)
    for run in runs_of(args):
        found = find(run, args)
        runs[run.model, run.method, run.swapped, run.sees, run.num_steps][run.seed] = found
        tell({**asdict(run), "cpu_s": found["cpu_s"], **found["accuracy"], "auc": found.get("auc")})
    models = {}
    for model in args.models:
        num_steps = args.num_steps or MODELS[model].num_steps
        meta = {"batch": args.meta_batch, "lr": args.meta_lr}
        models[model] = {"num_steps": num_steps, "batch": args.batch, "lr": MODELS[model].lr, "meta": meta}
        if "twins" in args.parts:
            models[model]["twins"] = twins_of(runs, model, num_steps)
        models[model]["methods"] = methods_of(runs, model)
    commits = sorted({one["commit"] for of_seed in runs.values() for one in of_seed.values()})
    command = " ".join(["python", "benchmarks/question_learning.py", *sys.argv[1:]]).replace(args.storage, "FOLDER")
    return {
        "command": command,
        "commit": ", ".join(commits),
        "seeds": args.seeds,
        "corpus": corpus_of(0, args).model_dump(mode="json", exclude={"seed"}),
        "torch": torch.__version__,
        "cpu_s": round(sum(one["cpu_s"] for of_seed in runs.values() for one in of_seed.values())),
        "models": models,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="folder of corpora and finished runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--method_models", nargs="*", choices=list(MODELS), default=["clip_vip"], help="of methods")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--swapped", type=float, default=0.3, help="share of training answers that are swapped")
    parser.add_argument("--level", choices=("simple", "full"), default="simple")
    parser.add_argument("--num_train", type=int, default=3000, help="clips; they have five questions and more each")
    parser.add_argument("--num_meta", type=int, default=256)
    parser.add_argument("--num_val", type=int, default=128)
    parser.add_argument("--num_test", type=int, default=400)
    parser.add_argument("--num_steps", type=int, default=0, help="0 takes those of the model's recipe")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--batch", type=int, default=64, help="pairs of a step")
    parser.add_argument("--meta_batch", type=int, default=128, help="pairs of a meta batch")
    parser.add_argument("--meta_lr", type=float, default=1e-3)
    parser.add_argument("--output")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.commit = commit()  # of what has been imported: the tree may change during hours of training
    report = report_of(args)
    text = json.dumps(report, indent=1)
    if args.output:
        Path(args.output).write_text(text + "\n")
    print(text)
    print(table_of(report))


if __name__ == "__main__":
    main()
