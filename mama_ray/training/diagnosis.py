"""What the weights do over a window of steps: means, warnings, and the learned loss-to-weight curve."""

from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mama_ray.training.input_report import input_curves, mean_weights, sensitivities
from mama_ray.training.loop import StepRecord
from mama_ray.training.state import require_finite, require_valid_clips
from mama_ray.weighting.weight_net import WeightNet

_COLLAPSE_SHARE = 0.05  # an effective sample size below this share of the batch: a few samples decide every step
# The largest weight of a step less than this many times its smallest: the net tells nothing apart, ...
_ALIKE_SPAN = 1.02
# ... though the losses lie further apart than this share of their mean, and than this: else there is nothing to tell.
_APART_SHARE, _APART = 0.5, 0.1
# Some rise is the rule: a lookahead long enough to tell samples apart overshoots, and weights that end up right were
# seen to double the meta loss. Far beyond that its gradient speaks of another place.
_LOOKAHEAD_RISE = 3.0
_NUM_CURVE_POINTS = 41
# A meta-set is judged by the last so many of its clips that meta steps have had, and is suspect where more than this
# share is told apart worse than by guessing: hard clips of clean ones stay well below.
_WATCHED_CLIPS, _FALSE_SHARE = 512, 0.1


class MetaSetWatch:
    """Notices a meta-set of which a part carries captions of other clips, from its own losses at the lookahead.

    A pair that is false is told apart worse than by guessing where most are told apart well, and little lies between:
    of a clean meta-set that is still being learned most lies between.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._shares: deque[tuple[Tensor, Tensor]] = deque(maxlen=max(1, _WATCHED_CLIPS // batch_size))

    def add(self, record: StepRecord) -> None:
        """Take in a step; one without a meta step says nothing."""
        if "meta/above_chance" in record.scalars:
            self._shares.append((record.scalars["meta/above_chance"], record.scalars["meta/below_half_chance"]))

    def warning(self) -> dict[str, str]:
        """Return what a person should look at, as `StepWindow.warnings` does."""
        if not self._shares or len(self._shares) < (self._shares.maxlen or 1):
            return {}
        above, below = (float(np.mean([float(value) for value in own])) for own in zip(*self._shares, strict=True))
        if below < 0.5 or above < max(_FALSE_SHARE, 1 - above - below):
            return {}
        text = (
            f"{above:.0%} of the meta-set's pairs are told apart worse than by guessing, while {below:.0%} are told "
            "apart well: look for captions of other clips in it; learned weights follow the meta-set"
        )
        return {"meta_set": text}


class StepWindow:
    """Collects step records between two log lines; numbers leave the device only when asked for.

    is_learned: whether the weights come from a weight net, which should tell samples apart.
    """

    def __init__(self, *, is_learned: bool = False) -> None:
        self._is_learned = is_learned
        self._losses: list[Tensor] = []
        self._scalars: list[dict[str, Tensor | float]] = []
        self._steps: list[int] = []
        self._weights: list[Tensor] = []
        self._inputs: list[Tensor] = []
        self._shares: list[Tensor] = []

    @property
    def num_steps(self) -> int:
        """Steps collected so far."""
        return len(self._steps)

    def add(self, record: StepRecord) -> None:
        """Take in the record of a finished step."""
        self._scalars.append(record.scalars)
        self._steps.append(record.step)
        self._losses.append(record.losses)
        self._weights.append(record.weights)
        if record.inputs is not None:
            self._inputs.append(record.inputs)
        if record.shares is not None:
            self._shares.append(record.shares)

    def require_sound(self) -> None:
        """Raise UserError where the loss or a gradient is no number or a whole batch was unusable; a window must pass
        before any of it is written or saved."""
        if not self._steps:
            return
        # The last step's gradients are in the weights already, and the losses of no step show it yet.
        norms = {name: None for scalars in self._scalars for name in scalars if name.endswith("_norm")}
        for name in ("train/loss", *norms):
            require_finite(name, self._mean(name), self._steps[-1])
        require_valid_clips([float(scalars["data/num_valid"]) for scalars in self._scalars], self._steps[-1])

    def of_inputs(self, weighting: nn.Module) -> dict[str, float]:
        """Return what a weight net that sees more than the loss does with each input; {} of any other weighting.

        Sensitivities are those in the last step's batch.
        """
        if not isinstance(weighting, WeightNet) or not self._inputs:
            return {}
        weights = torch.cat([weights * len(weights) for weights in self._weights])
        means = mean_weights(weighting.inputs, torch.cat(self._inputs), weights)
        is_usable = self._weights[-1] > 0
        return means | (sensitivities(weighting, self._inputs[-1][is_usable]) if is_usable.any() else {})

    def of_captions(self) -> dict[str, float]:
        """Return what part generated captions have in the losses of clips of two texts; {} without any.

        How many of the clips have a generated caption, and their mean share and its spread.
        """
        shares = self.shares()
        known = shares[~np.isnan(shares)]
        if not len(known):
            return {}
        return {
            "captions/generated": len(known) / len(shares),
            "captions/generated_share": float(known.mean()),
            "captions/generated_share_spread": float(known.std()),
        }

    def shares(self) -> np.ndarray:
        """Return the share of the generated caption in each sample's loss, NaN of a clip without one; none where clips
        have one text."""
        return torch.cat(self._shares).float().cpu().numpy() if self._shares else np.empty(0, np.float32)

    def _mean(self, name: str) -> float:
        """Return a scalar's mean over the steps that have it."""
        return float(np.mean([float(scalars[name]) for scalars in self._scalars if name in scalars]))

    def means(self) -> dict[str, float]:
        """Return each scalar's mean over the steps that have it, and whether the weights have collapsed, or
        learned ones are all alike."""
        names = dict.fromkeys(name for scalars in self._scalars for name in scalars)
        values = {name: self._mean(name) for name in names}
        if "weights/effective_sample_size" in values:
            values["weights/collapsed"] = float(values["weights/effective_sample_size"] < _COLLAPSE_SHARE)
        if self._is_learned:
            values["weights/alike"] = float(self._are_alike())
        return values

    def _are_alike(self) -> bool:
        """Tell whether no step had weights that differ, of those whose losses do."""
        num_steps = 0
        for losses, weights in zip(self._losses, self._weights, strict=True):
            losses, weights = losses[weights > 0], weights[weights > 0]  # unusable clips have none
            if not len(weights):
                continue
            spread = losses.max() - losses.min()
            if spread > _APART and spread > _APART_SHARE * losses.mean():
                num_steps += 1
                if weights.max() > _ALIKE_SPAN * weights.min():
                    return False
        return num_steps > 0

    def warnings(self, means: dict[str, float]) -> dict[str, str]:
        """Return what a person should look at: a name for the kind of trouble and a sentence."""
        found = {}
        if means.get("weights/collapsed"):
            share = means["weights/effective_sample_size"]
            found["collapse"] = f"weights have collapsed: {share:.1%} of the batch decides the step; lower meta.lr"
        if means.get("weights/alike"):
            found["alike"] = (
                "all weights are alike, whatever the loss: the weight net is saturated or dead and hardly learns; "
                "begin anew with a lower meta.lr or weighting.standardise"
            )
        pairs = [
            (float(scalars["meta/loss"]), float(scalars["meta/loss_before_lookahead"]))
            for scalars in self._scalars
            if "meta/loss_before_lookahead" in scalars
        ]
        if pairs and all(after > _LOOKAHEAD_RISE * before for after, before in pairs):
            found["lookahead"] = (
                f"the lookahead multiplies the meta loss by over {_LOOKAHEAD_RISE:g}: "
                "lower meta.inner.lr, or the learned weights mislead"
            )
        return found

    def rows_and_weights(self, rows_of_step: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the index rows of all samples in the window and their weights, 1 being uniform."""
        rows = np.concatenate([rows_of_step(step) for step in self._steps])
        weights = torch.cat([weights * len(weights) for weights in self._weights]).float().cpu().numpy()
        return rows, weights


@torch.no_grad()
def weight_curve(
    weighting: nn.Module, losses: Float[Tensor, "batch"] | None, inputs: Float[Tensor, "batch inputs"] | None = None
) -> dict[str, list[float]]:
    """Return the curve of a learned weighting over the range of `losses`, scaled so that their mean weight is 1.

    Of a weight net that sees standardised losses it is the curve in a batch like `losses`. {} for other weightings. Of
    a net with `inputs` there is a curve over each, that over the loss among them.
    """
    if losses is None or not isinstance(weighting, WeightNet):
        return {}
    if weighting.inputs:
        curves = {} if inputs is None else input_curves(weighting, inputs)
        names = {"inputs/loss/curve_value": "weights/curve_loss", "inputs/loss/curve_weight": "weights/curve_weight"}
        return {names.get(name, name): values for name, values in curves.items()}
    grid = torch.linspace(0.0, max(float(losses.max()), 1e-3), _NUM_CURVE_POINTS, device=losses.device)
    curve = weighting(grid, reference=losses) / weighting(losses).mean().clamp(min=1e-12)
    return {"weights/curve_loss": grid.tolist(), "weights/curve_weight": curve.tolist()}
