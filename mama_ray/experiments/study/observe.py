"""What is written down of a cell while it trains: the curve, and what the weights did near the end."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mama_ray.experiments.study.cell import CellConfig
from mama_ray.experiments.study.clip_arrays import ClipArrays
from mama_ray.training.loop import StepRecord
from mama_ray.training.state import TrainState

_LAST_SHARE = 0.25  # of the steps: over these the weights are averaged
_NUM_LOSS_BINS = 20
_SELECTION = "t2v_R@1"
_LEARNED = {"meta/margin", "meta/margin_spread"}
# Metrics on val and on test, test recall by topic, ranks of the test clips among all of them by direction.
Evaluation = tuple[dict[str, float], dict[str, float], dict[str, float], dict[str, list[int]]]


class Observer:
    """The `report` of a training loop: evaluates now and then, and keeps the last quarter's losses and weights.

    `evaluate` takes whether test is evaluated beside val.
    """

    def __init__(self, cell: CellConfig, state: TrainState, clips: ClipArrays, evaluate: Callable[[bool], Evaluation]):
        self._cell, self._state, self._evaluate = cell, state, evaluate
        self._kinds = clips.kinds
        self._points: list[dict[str, Any]] = []
        self._topics: list[dict[str, float]] = []
        self._ranks: list[dict[str, list[int]]] = []
        self._best: dict[str, torch.Tensor] = {}  # weights of the best point on val, where it has no test
        self._train_losses: list[float] = []
        self._last: list[tuple[np.ndarray, np.ndarray, np.ndarray, float]] = []
        self._meta_ratios: list[float] = []
        self._learned: dict[str, list[float]] = {}
        self._seconds = 0.0
        self._resumed_at = time.perf_counter()
        self._evaluated = cell.evaluated_steps

    def __call__(self, record: StepRecord) -> None:
        """Take in a finished step."""
        self._seconds += time.perf_counter() - self._resumed_at
        self._train_losses.append(float(record.scalars["train/unweighted_loss"]))
        if record.step >= (1 - _LAST_SHARE) * self._cell.num_steps:
            weights = record.weights.numpy() * len(record.weights)
            share = float(record.scalars["weights/effective_sample_size"])
            self._last.append((record.rows.numpy(), record.losses.numpy(), weights, share))
            for name in _LEARNED & record.scalars.keys():
                self._learned.setdefault(name.removeprefix("meta/"), []).append(float(record.scalars[name]))
            self._note_shares(record)
            before = record.scalars.get("meta/loss_before_lookahead")
            if before is not None:
                self._meta_ratios.append(float(record.scalars["meta/loss"]) / float(before))
        if record.step + 1 in self._evaluated:
            self.evaluate()
        self._resumed_at = time.perf_counter()

    def _note_shares(self, record: StepRecord) -> None:
        """Keep the shares of generated captions, all together and by what was done to the clips' own."""
        if record.shares is None:
            return
        shares, kinds = record.shares.numpy(), self._kinds[record.rows.numpy()]
        known = ~np.isnan(shares)
        if known.any():
            self._learned.setdefault("generated_share", []).append(float(shares[known].mean()))
        for kind in np.unique(kinds[known]).tolist():
            self._learned.setdefault(f"generated_share/{kind}", []).append(
                float(shares[known & (kinds == kind)].mean())
            )

    def evaluate(self) -> None:
        """Add a point to the curve."""
        is_tested = self._cell.num_steps == 0 or self._state.step in self._cell.tested_steps
        val, test, by_topic, ranks = self._evaluate(is_tested)
        if all(val[_SELECTION] > point["val"][_SELECTION] for point in self._points):
            weights = {} if is_tested else self._state.model.state_dict()
            self._best = {name: weight.clone() for name, weight in weights.items()}
        loss = round(float(np.mean(self._train_losses)), 4) if self._train_losses else None
        step = self._state.step
        # Of all clips, also where an oracle trains on a part of them: equal steps stand at equal epochs.
        epoch = round(step * self._cell.batch_size / self._cell.corpus.num_train, 2)
        self._points.append({"step": step, "epoch": epoch, "val": val, "test": test, "train_loss": loss})
        self._topics.append(by_topic)
        self._ranks.append(ranks)
        self._train_losses = []

    def result(self) -> dict[str, Any]:
        """Return the fields of a StudyRun that were observed."""
        # Of equal points the earliest: it is what stopping early would have given.
        selected = max(range(len(self._points)), key=lambda place: (self._points[place]["val"][_SELECTION], -place))
        if self._best:
            self._state.model.load_state_dict(self._best)
            _, self._points[selected]["test"], self._topics[selected], self._ranks[selected] = self._evaluate(True)
        found = {"selected": selected, "curve": self._points, "topic_recall": self._topics[selected]}
        found["ranks"] = self._ranks[selected]
        if not self._last:
            return found
        rows, losses, weights = (np.concatenate(part) for part in list(zip(*self._last, strict=True))[:3])
        kinds = self._kinds[rows]
        found["weights"] = {kind: round(float(weights[kinds == kind].mean()), 4) for kind in np.unique(kinds).tolist()}
        found["weight_curve"] = binned_means(losses, weights, _NUM_LOSS_BINS)
        found["effective_sample_size"] = round(float(np.mean([share for *_, share in self._last])), 4)
        found["meta_loss_ratio"] = round(float(np.median(self._meta_ratios)), 4) if self._meta_ratios else None
        if self._learned:
            found["learned"] = {name: round(float(np.mean(own)), 4) for name, own in sorted(self._learned.items())}
        found["step_s"] = round(self._seconds / self._cell.num_steps, 5)
        return found


def binned_means(losses: np.ndarray, weights: np.ndarray, num_bins: int) -> list[tuple[float, float]]:
    """Return (mean loss, mean weight) of bins of equally many samples, in order of the loss."""
    order = np.argsort(losses, kind="stable")
    parts = [part for part in np.array_split(order, num_bins) if len(part)]
    return [(round(float(losses[part].mean()), 4), round(float(weights[part].mean()), 4)) for part in parts]
