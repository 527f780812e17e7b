"""What rephrased and generated narrations add to human ones, on the embedded corpus told in the first person.

    python benchmarks/first_person.py --storage FOLDER [--seeds 0 1 2] [--arms human human+generated]
        [--output docs/measurements/first_person.json]

As in Ego4D, people narrated few of the clips ("#C C sees ..."); LaViLa's claim (arXiv 2212.04501) is that a narrator's
texts for the others, errors and all, teach more than the people's alone. Here one clip in five has a human narration
and a rephrased one, the others have two generated ones, three in ten of which state a false fact. The tiny TimeSformer
learns from scratch, by the plan of sources that `data.shares` has in training. Arms differ in their shares alone;
steps and batches are equal, and all are tested on human narrations. One corpus per seed.

Nothing is chosen on test: it is measured once, after the last step. A run that is in FOLDER already is not made again.
The last output is a table; all else is JSON.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from question_cases.data import CONTEXT_LENGTH, VOCAB_SIZE, shorten, write_pictures
from question_cases.report import interval_of, show
from question_cases.source_tree import commit, tell

from mama_ray.data.batch import ClipBatch, pad_batch, to_clip_batch
from mama_ray.data.plan import PlanConfig
from mama_ray.data.sources import SourceAssembler, SourcePlan
from mama_ray.data.synthetic.config import CorpusConfig, Split
from mama_ray.data.synthetic.generate import describe_clip
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.experiments.study.clip_arrays import ClipArrays, load_split
from mama_ray.experiments.study.run_cell import evaluate
from mama_ray.models.pretrained import from_preset, preset
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.loop import train
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig

PRESET, HUMAN = "tsf_tiny", "human"
SPLITS: tuple[Split, ...] = ("train", "val", "test")
ARMS: dict[str, dict[str, float]] = {
    HUMAN: {"human": 1.0},
    "human+rephrased": {"human": 0.5, "rephrased": 0.5},
    "human+generated": {"human": 0.5, "generated": 0.5},
    "all": {"human": 0.25, "rephrased": 0.25, "generated": 0.5},
    "generated": {"generated": 1.0},
}
METRICS = ("t2v_R@1", "v2t_R@1", "t2v_R@5", "t2v_mean_rank")


def corpus_of(seed: int, args: argparse.Namespace) -> CorpusConfig:
    """Return a seed's corpus; what people said is right and whole, unlike the captions of the controlled study."""
    return CorpusConfig(
        texts="first_person",
        level=args.level,
        seed=seed,
        num_train=args.num_train,
        num_meta=16,
        num_val=64,
        num_test=args.num_test,
        incomplete_rate=0.0,
        wrong_rate=0.0,
        swapped_rate=0.0,
    )


@dataclass(frozen=True)
class Narrated:
    """Assembles clips with one of their narrations from a source, another one in each epoch.

    Attributes:
        clips: whose frames they have.
        token_ids: of the source's narrations by row, each (narrations, tokens).
        seed: of what is drawn.
    """

    clips: ClipArrays
    token_ids: Mapping[int, np.ndarray]
    seed: int

    def assemble(self, rows: np.ndarray, epochs: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the arrays of a batch."""
        rows, epochs = np.asarray(rows), np.zeros(len(rows), int) if epochs is None else np.asarray(epochs)
        drawn = [
            self.token_ids[row][np.random.default_rng((self.seed, row, epoch)).integers(len(self.token_ids[row]))]
            for row, epoch in zip(rows.tolist(), epochs.tolist(), strict=True)
        ]
        token_ids = np.stack(drawn) if drawn else np.empty((0, CONTEXT_LENGTH), np.int64)
        return {
            "frames": self.clips.frames[rows],
            "token_ids": token_ids,
            "rows": rows.astype(np.int64),
            "valid": np.ones(len(rows), bool),
        }


def batches_of(
    clips: ClipArrays, tokenizer: Tokenizer, shares: Mapping[str, float], batch_size: int, seed: int
) -> Iterator[ClipBatch]:
    """Yield batches without end, each source with its share of them."""
    captions = [[{"text": one.text, "source": one.source} for one in clip.captions] for clip in clips.clips]
    table = pa.table({"shard": ["all"] * len(clips), "captions": captions})
    plan = SourcePlan(table, shares, PlanConfig(seed=seed))
    of_sources = {source: Narrated(clips, _token_ids(captions, source, tokenizer), seed) for source in plan.sources}
    assembler = SourceAssembler(of_sources, len(clips))
    step = 0
    while True:
        arrays = assembler.assemble(*plan.global_batch(step, batch_size))
        arrays["token_ids"] = shorten(arrays["token_ids"], tokenizer.pad_id)
        yield to_clip_batch(pad_batch(arrays, batch_size))
        step += 1


def _token_ids(captions: list[list[dict]], source: str, tokenizer: Tokenizer) -> dict[int, np.ndarray]:
    texts = {row: [one["text"] for one in own if one["source"] == source] for row, own in enumerate(captions)}
    return {row: tokenizer(own) for row, own in texts.items() if own}


def run_arm(corpus: CorpusConfig, shares: Mapping[str, float], args: argparse.Namespace) -> dict[str, float]:
    """Train from scratch and return the metrics on test."""
    torch.manual_seed(corpus.seed)
    frames = write_pictures(corpus, Path(args.storage) / "narrated", num_frames=preset(PRESET).num_frames)
    # One tokenizer for all arms, so that none has another vocabulary.
    clips = [describe_clip(corpus, "train", number) for number in range(corpus.num_train)]
    texts = [caption.text for clip in clips for caption in clip.captions]
    tokenizer = Tokenizer.train(texts, vocab_size=VOCAB_SIZE, context_length=CONTEXT_LENGTH)
    train_clips, val, test = (load_split(corpus, split, frames, tokenizer, {}) for split in SPLITS)
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": tokenizer.context_length}
    model = from_preset(PRESET, sizes)
    state = build_state(
        model,
        objective=ContrastiveConfig(),
        weighting=WeightingConfig(kind="uniform"),
        meta=MetaConfig(),
        optim=OptimConfig(lr=args.lr),
        num_steps=args.num_steps,
        global_batch_size=args.batch,
        seed=corpus.seed,
    )
    batches = batches_of(train_clips, tokenizer, shares, args.batch, corpus.seed)
    train(state, batches, iter(()), report=lambda record: None)
    model.eval()
    _, metrics, *_ = evaluate(model, val, test)
    return {name: metrics[name] for name in METRICS}


def find(arm: str, seed: int, args: argparse.Namespace) -> dict:
    """Return what an arm found with a seed, from its file where it has been made."""
    corpus = corpus_of(seed, args)
    setting = {"shares": ARMS[arm], "corpus": corpus.model_dump(mode="json"), "preset": PRESET}
    setting |= {"num_steps": args.num_steps, "batch": args.batch, "lr": args.lr}
    path = (
        Path(args.storage) / "runs" / f"{arm}-{seed}-{args.level}-{args.num_train}-{args.num_steps}-{args.batch}.json"
    )
    if path.exists() and (known := json.loads(path.read_text()))["setting"] == setting:
        return known
    started = time.process_time()
    found: dict = {"metrics": run_arm(corpus, ARMS[arm], args), "setting": setting, "commit": args.commit}
    found["cpu_s"] = round(time.process_time() - started, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1))
    return found


def report_of(args: argparse.Namespace) -> dict:
    """Make the runs that are not there and compare each arm with human narrations alone."""
    runs: dict[str, dict[int, dict]] = defaultdict(dict)
    for seed in args.seeds:
        for arm in args.arms:
            runs[arm][seed] = found = find(arm, seed, args)
            tell({"arm": arm, "seed": seed, "cpu_s": found["cpu_s"], **found["metrics"]})
    arms = {}
    for arm in args.arms:
        values = {name: [runs[arm][seed]["metrics"][name] for seed in args.seeds] for name in METRICS}
        arms[arm] = {"shares": ARMS[arm], "metrics": {name: interval_of(own) for name, own in values.items()}}
        if arm != HUMAN and HUMAN in runs:
            plain = [[runs[HUMAN][seed]["metrics"][name] for seed in args.seeds] for name in METRICS]
            pairs = {name: zip(values[name], own, strict=True) for name, own in zip(METRICS, plain, strict=True)}
            arms[arm]["over_human"] = {name: interval_of([a - b for a, b in own]) for name, own in pairs.items()}
    command = " ".join(["python", "benchmarks/first_person.py", *sys.argv[1:]]).replace(args.storage, "FOLDER")
    return {
        "command": command,
        "commit": ", ".join(sorted({one["commit"] for own in runs.values() for one in own.values()})),
        "seeds": args.seeds,
        "corpus": corpus_of(0, args).model_dump(mode="json", exclude={"seed"}),
        "recipe": {"preset": PRESET, "num_steps": args.num_steps, "batch": args.batch, "lr": args.lr},
        "cpu_s": round(sum(one["cpu_s"] for own in runs.values() for one in own.values())),
        "torch": torch.__version__,
        "arms": arms,
    }


def table_of(report: dict) -> str:
    """Lay the report out as a table in Markdown."""
    lines = ["| arm | t2v R@1 | over human | v2t R@1 | over human |", "|---|---|---|---|---|"]
    for arm, found in report["arms"].items():
        cells = []
        for name in ("t2v_R@1", "v2t_R@1"):
            over = found.get("over_human")
            cells += [show(found["metrics"][name]), "" if over is None else show(over[name], sign="+")]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="folder of corpora and finished runs")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--level", choices=("simple", "full"), default="simple")
    parser.add_argument("--num_train", type=int, default=3000)
    parser.add_argument("--num_test", type=int, default=400)
    parser.add_argument("--num_steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--output")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.commit = commit()  # of what has been imported: the tree may change during an hour of training
    report = report_of(args)
    text = json.dumps(report, indent=1)
    if args.output:
        Path(args.output).write_text(text + "\n")
    print(text)
    print(table_of(report))


if __name__ == "__main__":
    main()
