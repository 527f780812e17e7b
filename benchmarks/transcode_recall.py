"""What a model learns from clips that were made smaller, beside one that learns from the originals.

    .venv/bin/python benchmarks/transcode_recall.py [--seeds 0 1 2] [--num_train 800] [--num_test 200] [--num_steps 400]

The embedded corpus is made with more pixels and frames than the model takes, and once more made smaller as prepare
does. The same model learns from both with the same draws, and is tested on clips of the kind that it learned from, and
on those of the other. One corpus per seed. Prints JSON: means over the seeds with Student's 95 % intervals, and the
paired difference in recall.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from question_cases.data import CONTEXT_LENGTH, VOCAB_SIZE
from question_cases.report import interval_of

from mama_ray.data.batch import ClipBatch
from mama_ray.data.synthetic.config import CorpusConfig, Split
from mama_ray.data.synthetic.folder import list_clips
from mama_ray.data.synthetic.generate import describe_clip, generate_clip
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.settings import DecodeConfig, TranscodeConfig
from mama_ray.data.video.transcode import transcode
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.experiments.study.clip_arrays import ClipArrays, load_split
from mama_ray.experiments.study.run_cell import evaluate
from mama_ray.models.pretrained import from_preset, preset
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.loop import train
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import build_state
from mama_ray.weighting.settings import MetaConfig, WeightingConfig

PRESET, IMAGE_SIZE = "tsf_tiny", 48
KINDS = ("originals", "smaller")
SPLITS: tuple[Split, ...] = ("train", "val", "test")
METRICS = ("t2v_R@1", "v2t_R@1", "t2v_R@5")
_NUM_VAL = 48


def corpus_of(seed: int, args: argparse.Namespace) -> CorpusConfig:
    """Return a seed's corpus: 96 pixels and 16 frames a second, captions that are right."""
    sizes = {"num_train": args.num_train, "num_meta": 0, "num_val": _NUM_VAL, "num_test": args.num_test}
    right = {"incomplete_rate": 0.0, "wrong_rate": 0.0, "swapped_rate": 0.0}
    return CorpusConfig(seed=seed, image_size=96, num_frames=16, fps=16, **sizes, **right)


def write_frames(corpus: CorpusConfig, folder: Path, config: TranscodeConfig) -> dict[str, int]:
    """Make the clips, make them smaller, and decode both into arrays; returns the bytes of both."""
    transform, num_frames = TransformConfig(image_size=IMAGE_SIZE), preset(PRESET).num_frames
    frames: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    num_bytes = dict.fromkeys(KINDS, 0)
    for split, number in list_clips(corpus):
        path = folder / "clip.mp4"
        path.write_bytes(generate_clip(corpus, split, number).video)
        small = transcode(str(path), config, DecodeConfig()).data or path.read_bytes()
        for kind, video in zip(KINDS, (path.read_bytes(), small), strict=True):
            frames[kind].append(load_clip_frames(video, num_frames=num_frames, transform=transform))
            num_bytes[kind] += len(video)
    for kind in KINDS:
        np.save(folder / f"{kind}.npy", np.stack(frames[kind]), allow_pickle=False)
    return num_bytes


def batches_of(clips: ClipArrays, batch_size: int, seed: int) -> Iterator[ClipBatch]:
    """Yield batches without end."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(clips))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield clips.batch(order[start : start + batch_size])


def learn(corpus: CorpusConfig, folder: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the metrics on test by "kind it learned from, kind it was tested on"."""
    captions = [describe_clip(corpus, "train", number).captions[0].text for number in range(corpus.num_train)]
    tokenizer = Tokenizer.train(captions, vocab_size=VOCAB_SIZE, context_length=CONTEXT_LENGTH)
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": tokenizer.context_length}
    clips = {
        kind: [load_split(corpus, split, folder / f"{kind}.npy", tokenizer, {}) for split in SPLITS] for kind in KINDS
    }
    found = {}
    for kind in KINDS:
        torch.manual_seed(corpus.seed)
        state = build_state(
            from_preset(PRESET, sizes),
            objective=ContrastiveConfig(),
            weighting=WeightingConfig(kind="uniform"),
            meta=MetaConfig(),
            optim=OptimConfig(lr=args.lr),
            num_steps=args.num_steps,
            global_batch_size=args.batch,
            seed=corpus.seed,
        )
        train(state, batches_of(clips[kind][0], args.batch, corpus.seed), iter(()), report=lambda record: None)
        state.model.eval()
        for other in KINDS:
            _, metrics, *_ = evaluate(state.model, *clips[other][1:])
            found[f"{kind}, tested on {other}"] = {name: metrics[name] for name in METRICS}
    return found


def run_seed(seed: int, args: argparse.Namespace) -> dict:
    """Return what a seed found."""
    corpus = corpus_of(seed, args)
    with tempfile.TemporaryDirectory() as scratch:
        num_bytes = write_frames(corpus, Path(scratch), TranscodeConfig(short_side=IMAGE_SIZE, fps=args.fps))
        found = learn(corpus, Path(scratch), args)
    sys.stderr.write(json.dumps({"seed": seed, "bytes": num_bytes} | found) + "\n")
    return {"bytes": num_bytes, "metrics": found}


def main() -> None:
    """Learn, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for name, default in (("num_train", 800), ("num_test", 200), ("num_steps", 400), ("batch", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--fps", type=float, default=4.0, help="of the smaller clips")
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    runs = [run_seed(seed, args) for seed in args.seeds]
    means = {
        arm: {name: interval_of([run["metrics"][arm][name] for run in runs]) for name in METRICS}
        for arm in runs[0]["metrics"]
    }
    ours, theirs = "smaller, tested on smaller", "originals, tested on originals"
    difference = {
        name: interval_of([run["metrics"][ours][name] - run["metrics"][theirs][name] for run in runs])
        for name in METRICS
    }
    share = sum(run["bytes"]["smaller"] for run in runs) / sum(run["bytes"]["originals"] for run in runs)
    report = {
        "options": vars(args),
        "bytes, share": round(share, 3),
        "metrics": means,
        f"{ours} - {theirs}": difference,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
