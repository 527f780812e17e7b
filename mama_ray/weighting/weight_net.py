"""The weight net and the baseline weightings: all map detached per-sample losses to raw, non-negative weights.

A weighting sees the losses of the *global* batch (they are gathered first: a few numbers), so every rank computes the
same weights and nothing depends on the number of ranks.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mama_ray.weighting.inputs import WeightInput, describe_inputs
from mama_ray.weighting.settings import WeightingConfig

MIN_WEIGHT_SUM = 1e-12  # below this the weights carry no information and the step falls back to uniform ones


class WeightNet(nn.Module):
    """The paper's MLP 1 -> hidden -> 1 with ReLU and sigmoid (193 parameters at width 64); with `inputs` it sees these
    instead of the loss alone."""

    def __init__(self, hidden_dim: int = 64, *, standardise: bool = False, inputs: Sequence[WeightInput] = ()):
        super().__init__()
        self.hidden = nn.Linear(sum(each.width for each in inputs) or 1, hidden_dim)
        self.output = nn.Linear(hidden_dim, 1)
        self.standardise, self.inputs = standardise, tuple(inputs)

    def forward(
        self, losses: Float[Tensor, "batch *inputs"], *, reference: Float[Tensor, "others *inputs"] | None = None
    ) -> Float[Tensor, "batch"]:
        """Return weights in (0, 1); the losses are detached here, so no gradient reaches the model through them.

        With `inputs` the table of these takes the place of the losses. `reference` is what standardised inputs are
        measured by, where `losses` are no batch themselves.
        """
        losses = losses.detach().to(self.hidden.weight.dtype)
        if self.inputs:
            measure = losses if reference is None else reference.detach().to(losses.dtype)
            columns = zip(self.inputs, losses.unbind(1), measure.unbind(1), strict=True)
            read = torch.cat([each.encode(column, others) for each, column, others in columns], dim=1)
            return self.output(self.hidden(read).relu())[:, 0].sigmoid()
        if self.standardise:
            measure = losses if reference is None else reference.detach().to(losses.dtype)
            losses = (losses - measure.mean()) / (measure.std(correction=0) + 1e-6)
        return self.output(self.hidden(losses[:, None]).relu())[:, 0].sigmoid()


class Uniform(nn.Module):
    """Every sample weighs the same."""

    def forward(self, losses: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        return torch.ones_like(losses)


class Focal(nn.Module):
    """Hard samples first: (1 - p)^gamma with p = exp(-loss) (Lin et al. 2017)."""

    def __init__(self, gamma: float):
        super().__init__()
        self.gamma = gamma

    def forward(self, losses: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        return (-torch.expm1(-losses.detach().clamp(min=0.0))).pow(self.gamma)


class SelfPaced(nn.Module):
    """Easy samples first: keep the share of the batch with the lowest losses (Kumar et al. 2010)."""

    def __init__(self, start: float):
        super().__init__()
        self.start = start
        self.progress = 0.0

    def set_progress(self, progress: float) -> None:
        """Tell the share of training done, 0 to 1; the kept share grows with it."""
        self.progress = min(max(progress, 0.0), 1.0)

    def forward(self, losses: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        if losses.numel() == 0:  # a batch of which no clip could be read
            return torch.ones_like(losses)
        share = self.start + (1.0 - self.start) * self.progress
        num_kept = max(1, round(share * losses.numel()))
        threshold = losses.detach().kthvalue(num_kept).values
        return (losses.detach() <= threshold).to(losses.dtype)


def build_weighting(config: WeightingConfig) -> nn.Module:
    """Make the module that maps losses to raw weights."""
    match config.kind:
        case "uniform":
            return Uniform()
        case "focal":
            return Focal(config.focal_gamma)
        case "self_paced":
            return SelfPaced(config.self_paced_start)
        case "learned":
            return WeightNet(config.hidden_dim, standardise=config.standardise, inputs=describe_inputs(config))


def compute_sample_weights(
    weighting: nn.Module,
    losses: Float[Tensor, "batch"],
    normalisation: str,
    *,
    valid: Bool[Tensor, "batch"] | None = None,
    inputs: Float[Tensor, "batch inputs"] | None = None,
) -> Float[Tensor, "batch"]:
    """Return the coefficients w_i of the batch loss sum_i w_i L_i, differentiable in the weighting's parameters.

    `losses`, `valid` and `inputs`, which a net with inputs sees in the place of the losses, cover the global batch.
    Uniform weights give the plain mean under `sum_global` and `none`. Where all raw weights vanish the result is
    uniform (and carries no gradient): a zero sum must not end a run.
    """
    valid = torch.ones_like(losses, dtype=torch.bool) if valid is None else valid
    seen = losses if inputs is None else inputs
    weights = losses.new_zeros(losses.shape).masked_scatter(valid, weighting(seen[valid]).to(losses.dtype))
    num_valid = valid.sum().clamp(min=1)
    if weights.detach().sum() <= MIN_WEIGHT_SUM:
        return valid.to(losses.dtype) / num_valid
    match normalisation:
        case "sum_global":
            return weights / weights.sum()
        case "none":
            return weights / num_valid
        case "l2":
            return weights / weights.norm() / num_valid
    raise AssertionError(normalisation)


def effective_sample_size(weights: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
    """Return (sum w)^2 / sum w^2: how many equally weighted samples the batch is worth (Kish)."""
    return weights.sum().square() / weights.square().sum().clamp(min=torch.finfo(weights.dtype).tiny)
