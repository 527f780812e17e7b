"""One run of the study's set-up on one thread, with the CPU seconds of its steps at every evaluation."""

import time
from pathlib import Path
from typing import Any

import torch

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.clip_arrays import load_split
from mama_ray.experiments.study.run_cell import evaluate, make_meta_set, meta_batches, start_model, training_batches
from mama_ray.training.loop import StepRecord, train
from mama_ray.training.state import build_state


def run(cell: CellConfig, frames: Path, pretrained: Path) -> dict[str, Any]:
    """Train; returns the CPU seconds of all steps, evaluations not among them, and the curve of val and test over
    them. The point with the best val t2v_R@1 is `selected`."""
    torch.manual_seed(cell.seed)
    tokenizer, model = Tokenizer.from_directory(pretrained), start_model(cell, pretrained)
    splits = {
        split: load_split(cell.seeded_corpus, split, frames, tokenizer, {})
        for split in ("train", "meta", "val", "test")
    }
    meta = make_meta_set(splits["meta"], cell.meta_set, seed=cell.seed)
    state = build_state(
        model,
        objective=cell.objective,
        weighting=cell.weighting,
        meta=cell.meta,
        optim=cell.optim,
        num_steps=cell.num_steps,
        global_batch_size=cell.batch_size,
        seed=cell.seed,
    )
    curve: list[dict[str, float]] = []
    evaluated = {round(cell.num_steps * (number + 1) / cell.num_evaluations) for number in range(cell.num_evaluations)}
    seconds, resumed = 0.0, time.process_time()

    def report(record: StepRecord) -> None:
        nonlocal seconds, resumed
        seconds += time.process_time() - resumed
        if record.step + 1 in evaluated:
            val, test, *_ = evaluate(model, splits["val"], splits["test"])
            scores = {"val": val["t2v_R@1"], "test": test["t2v_R@1"], "test_v2t": test["v2t_R@1"]}
            curve.append({"step": record.step + 1, "cpu_s": round(seconds, 3)} | scores)
        resumed = time.process_time()

    train(state, training_batches(splits["train"], cell), meta_batches(meta, cell), report=report)
    return {"cpu_s": round(seconds, 3), "curve": curve, "selected": selected(curve)}


def selected(curve: list[dict[str, float]]) -> int:
    """Return the place of the point with the best val recall; of equals the first."""
    return max(range(len(curve)), key=lambda place: (curve[place]["val"], -place))
