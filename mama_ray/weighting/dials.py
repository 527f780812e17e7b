"""Numbers that enter every training loss beside theta, learned on the meta-set: a sample's margin, and the share of its
generated caption.

With L_i(theta, d_i) the loss of sample i and d_i its number, theta' = theta - A(sum_i w_i grad L_i) gives

    dL_meta/dd_i = - w_i d/d eps [dL_i/dd_i](theta + eps v) at 0        v = A^T grad L_meta(theta')

So the slope dL_i/dd_i goes through the directional pass beside the loss itself: one more column, no more passes. Of a
share g with L_i = (1 - g_i) own_i + g_i generated_i the slope is generated_i - own_i. The meta loss has none of these
numbers, or it would be lowered by them instead of by what is learned with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mama_ray.data.batch import ClipBatch
from mama_ray.data.classes.names import HAS_GENERATED
from mama_ray.objectives.gather import gather_plain, rank
from mama_ray.objectives.objective import (
    MARGIN,
    SHARE,
    ContrastiveObjective,
    Objective,
    Outputs,
    PairedFeatures,
    TrainingObjective,
)
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.weighting.hypergradient import norm_of
from mama_ray.weighting.inputs import WeightInput, describe_inputs
from mama_ray.weighting.settings import (
    MetaConfig,
    WeightingConfig,
    require_learnable_margin,
    require_learnable_share,
)

_HIDDEN = 16


class Dial(nn.Module):
    """One bounded number for each sample: the same for all, or by a small net of what is known of the sample, such as
    its loss without the number."""

    def __init__(
        self, kind: Literal["scalar", "per_sample"], *, low: float, high: float, start: float, num_inputs: int = 1
    ):
        super().__init__()
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        raw = torch.atanh(torch.tensor((start - self._middle) / self._half, dtype=torch.float64)).float()
        self.hidden = nn.Linear(num_inputs, _HIDDEN) if kind == "per_sample" else None
        self.output = nn.Linear(_HIDDEN, 1) if kind == "per_sample" else None
        if self.output is None:
            self.raw = nn.Parameter(raw)
        else:
            nn.init.zeros_(self.output.weight)  # all samples start with the same
            nn.init.constant_(self.output.bias, float(raw))

    def forward(self, seen: Float[Tensor, " batch *inputs"]) -> Float[Tensor, " batch"]:
        """Return the samples' numbers; what is seen is detached."""
        if self.hidden is None or self.output is None:
            return self._middle + self._half * self.raw.tanh().expand(len(seen))
        seen = seen.detach().to(self.hidden.weight.dtype)
        seen = seen[:, None] if seen.dim() == 1 else seen
        return self._middle + self._half * self.output(self.hidden(seen).relu())[:, 0].tanh()


@dataclass(frozen=True)
class _Seen:
    """What the numbers of a global batch are made of: each dial's table, and of which samples its number counts."""

    tables: dict[str, Tensor]
    counts: dict[str, Bool[Tensor, "global"]]


class Dials:
    """The learned numbers of a run, by the name of their target, and their optimiser (AdamW without decay).

    `columns` are those of a batch's weight_inputs that the share's net reads beside the two losses.
    """

    def __init__(
        self,
        dials: dict[str, Dial],
        contrastive: ContrastiveObjective,
        *,
        rates: dict[str, float],
        columns: Sequence[WeightInput] = (),
    ):
        self.module = nn.ModuleDict(dials)
        groups = [{"params": list(dial.parameters()), "lr": rates[name]} for name, dial in dials.items()]
        self.optimizer = torch.optim.Adam(groups)
        self._contrastive, self._columns = contrastive, columns
        self._seen: _Seen | None = None

    def plain(self, objective: Objective) -> Objective:
        """Return the objective without the numbers: that of the meta loss, whose clips have one text each."""
        if isinstance(objective, TrainingObjective):
            return replace(objective, contrastive=self._contrastive)
        return self._contrastive

    @torch.no_grad()
    def see(self, outputs: Outputs, batch: ClipBatch) -> ClipBatch:
        """Look at the samples' plain losses, which the numbers are made of, and set them (`turn`)."""
        tables, counts = {}, {}
        losses = [self._contrastive(outputs, batch)] if SHARE not in self.module else self._losses_apart(outputs, batch)
        seen = gather_plain(torch.stack(losses, dim=1))
        valid = gather_plain(batch.valid)
        if MARGIN in self.module:
            tables[MARGIN], counts[MARGIN] = seen[:, 0], valid
        if SHARE in self.module:
            tables[SHARE] = torch.cat([seen, *self._read_columns(batch, valid, seen.dtype)], dim=1)
            counts[SHARE] = valid & gather_plain(batch.targets[HAS_GENERATED])
        self._seen = _Seen(tables, counts)
        return self.turn(batch)

    def turn(self, batch: ClipBatch) -> ClipBatch:
        """Return this rank's batch with the samples' numbers as they are now among its targets."""
        own = slice(rank() * len(batch), (rank() + 1) * len(batch))
        tables = self._known.tables
        values = {name: value.detach()[own].to(tables[name].dtype) for name, value in self._values().items()}
        return replace(batch, targets=batch.targets | values)

    def slopes(self, outputs: Outputs, batch: ClipBatch) -> list[Float[Tensor, " local"]]:
        """Return the slope of each sample's loss in each of its numbers."""
        of = {MARGIN: self._contrastive.margin_slopes, SHARE: self._share_slopes}
        return [of[name](outputs, batch) for name in self.module]

    def step_(self, weights: Float[Tensor, "global"], derivatives: Float[Tensor, "global dials"]) -> dict[str, Tensor]:
        """Move along the meta loss's gradient; `derivatives` are those of the slopes along v. Returns what to report.

        The weights are those of the lookahead.
        """
        values, told = self._values(), {}
        for name, value in values.items():
            used = value.detach()[self._known.counts[name] & (weights > 0)]
            if len(used):
                told |= {f"meta/{name}": used.mean(), f"meta/{name}_spread": used.std(correction=0)}
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
    def _known(self) -> _Seen:
        assert self._seen is not None
        return self._seen

    def _values(self) -> dict[str, Tensor]:
        return {name: dial(self._known.tables[name]) for name, dial in self.module.items()}

    def _losses_apart(self, outputs: Outputs, batch: ClipBatch) -> list[Tensor]:
        assert isinstance(outputs, PairedFeatures), "a learned share needs batches with generated captions"
        return list(self._contrastive.apart(outputs, batch))

    def _share_slopes(self, outputs: Outputs, batch: ClipBatch) -> Float[Tensor, " local"]:
        own, generated = self._losses_apart(outputs, batch)
        return generated - own

    def _read_columns(self, batch: ClipBatch, valid: Bool[Tensor, "global"], dtype: torch.dtype) -> list[Tensor]:
        if not self._columns:
            return []
        assert batch.weight_inputs is not None
        table = gather_plain(batch.weight_inputs).to(dtype).unbind(1)
        return [each.encode(column, column[valid]) for each, column in zip(self._columns, table, strict=True)]


def build_dials(
    meta: MetaConfig, objective: ContrastiveConfig | None, weighting: WeightingConfig, device: torch.device | str
) -> Dials | None:
    """Make what a run learns beside its weights; None where that is nothing. ValueError for what cannot be."""
    dials, rates = {}, {MARGIN: meta.margin_lr, SHARE: meta.lr}
    columns = [each for each in describe_inputs(weighting) if each.name in weighting.columns]
    if meta.margin != "fixed":
        require_learnable_margin(meta, objective, weighting)
        assert objective is not None
        dials[MARGIN] = Dial(meta.margin, low=-meta.margin_limit, high=meta.margin_limit, start=objective.margin)
    if objective is not None and objective.learns_share:
        require_learnable_share(weighting)
        num_inputs = 2 + sum(each.width for each in columns)
        dials[SHARE] = Dial("per_sample", low=0.0, high=1.0, start=0.5, num_inputs=num_inputs)
    if objective is None or not dials:
        return None
    contrastive = without_margin(objective) if MARGIN in dials else ContrastiveObjective(objective)
    return Dials({name: dial.to(device) for name, dial in dials.items()}, contrastive, rates=rates, columns=columns)


def without_margin(objective: ContrastiveConfig) -> ContrastiveObjective:
    """Return the contrast without its margin: what a learned one is learned for."""
    return ContrastiveObjective(objective.model_copy(update={"margin": 0.0}))


def shares_of(objective: Objective, batch: ClipBatch) -> Float[Tensor, "global"] | None:
    """Return the share of the generated caption in the loss of each clip of all ranks, NaN of a clip without one; None
    of clips with one text each."""
    contrastive = objective.contrastive if isinstance(objective, TrainingObjective) else objective
    if batch.generated_ids is None or not isinstance(contrastive, ContrastiveObjective):
        return None
    has_generated = batch.targets[HAS_GENERATED] & batch.valid
    shares = contrastive.shares(batch)
    return gather_plain(torch.where(has_generated, shares, torch.full_like(shares, torch.nan)))
