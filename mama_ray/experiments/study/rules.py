"""Rules that say without a meta-set which training clips count: what learned weights have to beat.

A rule stands where a weighting does: it is handed the losses of a batch and returns raw weights. It knows the clips of
the batch by `rows`, which whoever feeds the training sets before each step, and learns of their losses after it.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from mama_ray.data.batch import ClipBatch
from mama_ray.experiments.study.cell import RuleConfig
from mama_ray.experiments.study.clip_arrays import ClipArrays
from mama_ray.training.loop import StepRecord

_EM_STEPS = 50
_SMALLEST_VARIANCE = 5e-4  # of losses between 0 and 1, as DivideMix has it


class Rule(nn.Module):
    """Weighs by clip: `weights` is (clips,); a subclass may change them as training goes on."""

    def __init__(self, weights: np.ndarray):
        super().__init__()
        self.weights = weights
        self.rows = np.empty(0, dtype=np.int64)

    def forward(self, losses: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Return the raw weights of the clips of the batch."""
        return torch.from_numpy(self.weights[self.rows]).to(losses)

    def announce(self, batches: Iterable[ClipBatch]) -> Iterator[ClipBatch]:
        """Yield batches, each after the rule knows whose losses come next."""
        for batch in batches:
            self.rows = batch.rows.numpy()
            yield batch

    def observe(self, record: StepRecord) -> None:
        """Take in the losses of a finished step."""


class KeepLowest(Rule):
    """Keeps a fixed share of each batch: its lowest losses."""

    def __init__(self, share: float):
        super().__init__(np.empty(0))
        self.share = share

    def forward(self, losses: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Return 1 for the lowest losses, of equal ones for all, and 0 for the others."""
        num_kept = max(1, round(self.share * len(losses)))
        return (losses.detach() <= losses.detach().kthvalue(num_kept).values).to(losses.dtype)


class Mixture(Rule):
    """Keeps the clips whose averaged loss a mixture of two Gaussians takes for clean; fitted anew every so often."""

    def __init__(self, config: RuleConfig, num_clips: int):
        super().__init__(np.ones(num_clips))
        self._config = config
        self._averages = np.full(num_clips, np.nan)
        self._num_seen = 0

    def observe(self, record: StepRecord) -> None:
        """Average the losses of the step's clips, and fit the mixture when it is time."""
        rows, losses = record.rows.numpy(), record.losses.double().numpy()
        known = self._averages[rows]
        averaged = self._config.decay * known + (1 - self._config.decay) * losses
        self._averages[rows] = np.where(np.isnan(known), losses, averaged)
        self._num_seen += 1
        since = self._num_seen - self._config.warmup_steps
        if since >= 0 and since % self._config.refit_every == 0:
            self._fit()

    def _fit(self) -> None:
        seen = ~np.isnan(self._averages)
        is_clean = clean_probability(self._averages[seen]) >= self._config.threshold
        self.weights = np.ones(len(self.weights))
        self.weights[seen] = is_clean


def clean_probability(losses: Float64[np.ndarray, " clips"]) -> Float64[np.ndarray, " clips"]:
    """Return each clip's probability of belonging to the component of the lower losses.

    Two Gaussians are fitted by expectation maximisation to losses between 0 and 1, from the halves below and above the
    median. All clips are clean where the losses are one and the same.
    """
    span = np.ptp(losses)
    if span <= 0:
        return np.ones(len(losses))
    values = (losses - losses.min()) / span
    shares = np.where((values <= np.median(values))[:, None], (0.9, 0.1), (0.1, 0.9))
    for _ in range(_EM_STEPS):
        sizes = shares.sum(axis=0)
        means = (shares * values[:, None]).sum(axis=0) / sizes
        variances = (shares * (values[:, None] - means) ** 2).sum(axis=0) / sizes + _SMALLEST_VARIANCE
        logs = np.log(sizes / len(values)) - 0.5 * np.log(variances) - (values[:, None] - means) ** 2 / (2 * variances)
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares = np.maximum(shares, 1e-12)  # a component that nothing belongs to would have no mean
    return shares[:, int(means.argmin())]


def inverse_frequency(topics: np.ndarray) -> Float64[np.ndarray, " clips"]:
    """Return one over the share of each clip's topic, with mean 1."""
    _, places, counts = np.unique(topics, return_inverse=True, return_counts=True)
    weights = 1.0 / counts[places]
    return weights / weights.mean()


def build_rule(config: RuleConfig, clips: ClipArrays) -> Rule | None:
    """Return the rule for these training clips, None where weighting has its own way."""
    match config.kind:
        case "none":
            return None
        case "keep_lowest":
            return KeepLowest(config.keep_share)
        case "mixture":
            return Mixture(config, len(clips))
        case "inverse_frequency":
            return Rule(inverse_frequency(clips.topics))
