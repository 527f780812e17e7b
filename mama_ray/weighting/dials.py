"""Numbers that enter every training loss beside theta, learned on the meta-set: a sample's margin.

With L_i(theta, d_i) the loss of sample i and d_i its number, theta' = theta - A(sum_i w_i grad L_i) gives

    dL_meta/dd_i = - w_i d/d eps [dL_i/dd_i](theta + eps v) at 0        v = A^T grad L_meta(theta')

So the slope dL_i/dd_i goes through the directional pass beside the loss itself: one more column, no more passes. The
meta loss has none of these numbers, or it would be lowered by them instead of by what is learned with them.
"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mama_ray.data.batch import ClipBatch
from mama_ray.objectives.gather import gather_plain, rank
from mama_ray.objectives.objective import MARGIN, ContrastiveObjective, Objective, Outputs, TrainingObjective
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.hypergradient import norm_of
from mama_ray.weighting.settings import MetaConfig, WeightingConfig, require_learnable_margin

_HIDDEN = 16


class Dial(nn.Module):
    """One bounded number for each sample: the same for all, or by a small net of the sample's loss without it."""

    def __init__(self, kind: Literal["scalar", "per_sample"], *, low: float, high: float, start: float):
        super().__init__()
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        raw = torch.atanh(torch.tensor((start - self._middle) / self._half, dtype=torch.float64)).float()
        self.hidden = nn.Linear(1, _HIDDEN) if kind == "per_sample" else None
        self.output = nn.Linear(_HIDDEN, 1) if kind == "per_sample" else None
        if self.output is None:
            self.raw = nn.Parameter(raw)
        else:
            nn.init.zeros_(self.output.weight)  # all samples start with the same
            nn.init.constant_(self.output.bias, float(raw))

    def forward(self, losses: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the samples' numbers; the losses are detached."""
        if self.hidden is None or self.output is None:
            return self._middle + self._half * self.raw.tanh().expand(len(losses))
        losses = losses.detach().to(self.hidden.weight.dtype)
        return self._middle + self._half * self.output(self.hidden(losses[:, None]).relu())[:, 0].tanh()


class Dials:
    """The learned numbers of a run, by the name of their target, and their optimiser (AdamW without decay)."""

    def __init__(self, dials: dict[str, Dial], contrastive: ContrastiveObjective, *, lr: float):
        self.module = nn.ModuleDict(dials)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=lr)
        self._contrastive = contrastive
        self._seen: Float[Tensor, "global"] | None = None

    def plain(self, objective: Objective) -> Objective:
        """Return the objective without the numbers: that of the meta loss."""
        if isinstance(objective, TrainingObjective):
            return replace(objective, contrastive=self._contrastive)
        return self._contrastive

    def see(self, outputs: Outputs, batch: ClipBatch) -> ClipBatch:
        """Look at the samples' plain losses, which the numbers are made of, and set them (`turn`)."""
        with torch.no_grad():
            self._seen = gather_plain(self._contrastive(outputs, batch))
        return self.turn(batch)

    def turn(self, batch: ClipBatch) -> ClipBatch:
        """Return this rank's batch with the samples' numbers as they are now among its targets."""
        own = slice(rank() * len(batch), (rank() + 1) * len(batch))
        values = {name: value.detach()[own].to(self._losses) for name, value in self._values().items()}
        return replace(batch, targets=batch.targets | values)

    def slopes(self, outputs: Outputs, batch: ClipBatch) -> list[Float[Tensor, " local"]]:
        """Return the slope of each sample's loss in each of its numbers."""
        of = {MARGIN: self._contrastive.margin_slopes}
        return [of[name](outputs, batch) for name in self.module]

    def step_(self, weights: Float[Tensor, "global"], derivatives: Float[Tensor, "global dials"]) -> dict[str, Tensor]:
        """Move along the meta loss's gradient; `derivatives` are those of the slopes along v. Returns what to report.

        The weights are those of the lookahead.
        """
        values = self._values()
        used = {name: value.detach()[weights > 0] for name, value in values.items()}  # padding has none
        told = {f"meta/{name}": value.mean() for name, value in used.items()}
        told |= {f"meta/{name}_spread": value.std(correction=0) for name, value in used.items()}
        columns = zip(values.values(), derivatives.unbind(1), strict=True)
        objective = -torch.stack(
            [(value * (weights * column).to(value.dtype)).sum() for value, column in columns]
        ).sum()
        self.optimizer.zero_grad(set_to_none=True)
        objective.backward()
        for name, dial in self.module.items():
            told[f"meta/{name}_gradient_norm"] = norm_of({key: value.grad for key, value in dial.named_parameters()})
        self.optimizer.step()
        return told

    @property
    def _losses(self) -> Float[Tensor, "global"]:
        assert self._seen is not None
        return self._seen

    def _values(self) -> dict[str, Tensor]:
        return {name: dial(self._losses) for name, dial in self.module.items()}


def build_dials(
    meta: MetaConfig, objective: ContrastiveConfig | None, weighting: WeightingConfig, device: torch.device | str
) -> Dials | None:
    """Make what a run learns beside its weights; None where that is nothing. ValueError for what cannot be."""
    if meta.margin == "fixed":
        return None
    require_learnable_margin(meta, objective, weighting)
    assert objective is not None
    dial = Dial(meta.margin, low=-meta.margin_limit, high=meta.margin_limit, start=objective.margin).to(device)
    return Dials({MARGIN: dial}, without_margin(objective), lr=meta.margin_lr)


def without_margin(objective: ContrastiveConfig) -> ContrastiveObjective:
    """Return the contrast without its margin: what a learned one is learned for."""
    return ContrastiveObjective(objective.model_copy(update={"margin": 0.0}))
