"""The weighted step: gradients of sum_i w_i(phi) l_i(theta), and now and then a meta step that improves phi.

    1  features, per-sample losses, weights normalised over the global batch
    2  lookahead theta' = theta - A(grad sum_i w_i l_i)
    3  v = A^T grad at theta' of the mean meta loss, all-reduced
    4  c_i along v at theta (one forward-mode pass); phi steps along sum_i (dw_i/dphi) c_i
    5  theta's gradient: with the new weights (faithful), or the one of step 2 (shared: the lookahead's gradient is
    used)

The caller owns the optimiser of theta; `compute_gradients` leaves its gradient in `.grad`, reduced over ranks.

All passes over a batch are of one function of the parameters: dropout drops the same in each, and running statistics
move in the training pass alone (`draws.py`).
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mama_ray.data.batch import ClipBatch
from mama_ray.objectives.gather import rank, world_size
from mama_ray.objectives.objective import ContrastiveObjective, Objective, Outputs, TrainingObjective, remake
from mama_ray.weighting.dials import Dials, shares_of
from mama_ray.weighting.draws import Draws, RunningStatistics
from mama_ray.weighting.features import Autocast, EncodedBatch, cosines_of, encode_functionally, gradients_at, unwrap
from mama_ray.weighting.hypergradient import norm_of
from mama_ray.weighting.inputs import AverageLoss, ClipInputs
from mama_ray.weighting.meta_average import MetaAverage
from mama_ray.weighting.meta_step import MetaStep, TrainingPass
from mama_ray.weighting.over_ranks import all_reduce, gather_with_validity, mean_terms
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from mama_ray.weighting.tape import Tape
from mama_ray.weighting.terms import NUM_TERMS, compute_term_weights, line_up, of_clips, sum_terms
from mama_ray.weighting.weight_net import compute_sample_weights, effective_sample_size


class Judged(NamedTuple):
    """What weights are made of, over the global batch."""

    losses: Float[Tensor, "global"]
    valid: Bool[Tensor, "global"]
    inputs: Float[Tensor, "global inputs"] | None


@dataclass(frozen=True)
class StepResult:
    """What one step saw, over the global batch, cosines of this rank's clips alone; everything detached. Inputs are
    those of a weight net that sees more than the loss, shares those of generated captions (`shares_of`)."""

    losses: Float[Tensor, "global"]
    weights: Float[Tensor, "global"]
    scalars: dict[str, Tensor]
    cosines: Float[Tensor, " local"] | None = None
    inputs: Float[Tensor, "global inputs"] | None = None
    shares: Float[Tensor, "global"] | None = None


class WeightedStep:
    """Binds a model, its objective and a weighting; has no state but averages, of the meta gradient and of clips'
    losses, if asked for."""

    def __init__(
        self,
        model: nn.Module,
        weighting: nn.Module,
        *,
        objective: Objective,
        weighting_config: WeightingConfig,
        meta: MetaConfig,
        optimizer: torch.optim.Optimizer | None = None,
        weight_optimizer: torch.optim.Optimizer | None = None,
        num_micro_batches: int = 1,
        autocast: Autocast = nullcontext,
        seed: int = 0,
        num_samples: int | None = None,
        dials: Dials | None = None,
    ):
        self.model, self.weighting = model, weighting
        self.objective, self.weighting_config, self.meta = objective, weighting_config, meta
        self.optimizer, self.weight_optimizer = optimizer, weight_optimizer
        self.num_micro_batches, self.autocast = num_micro_batches, autocast
        self.parameters = {name: value for name, value in unwrap(model).named_parameters() if value.requires_grad}
        self._seed, self._statistics = seed, RunningStatistics(model)
        has_task = isinstance(objective, TrainingObjective) and objective.has_task
        self._num_losses = NUM_TERMS if has_task and weighting_config.weighted_term != "sum" else 1
        self._inputs = self._clip_inputs(num_samples) if weighting_config.sees_more else None
        self.dials = dials
        self._meta_step = MetaStep(
            model,
            self.parameters,
            objective=objective if dials is None else dials.plain(objective),
            losses_of=self._columns_of,
            meta=meta,
            optimizer=optimizer,
            num_micro_batches=num_micro_batches,
        )

    @property
    def meta_average(self) -> MetaAverage | None:
        """The average of the meta gradient, where one is kept."""
        return self._meta_step.average

    @property
    def average_loss(self) -> AverageLoss | None:
        """The average of each sample's loss over its visits, where the weight net sees it."""
        return None if self._inputs is None else self._inputs.average

    @property
    def is_learned(self) -> bool:
        """Whether the weighting has parameters to train."""
        return self.weight_optimizer is not None

    def is_meta_step(self, step: int) -> bool:
        """Whether step number `step` trains the weight net, or what there is beside it, on the meta-set."""
        return (self.dials is not None or self._weights_by_meta) and step % self.meta.meta_every == 0

    @property
    def _weights_by_meta(self) -> bool:
        return self.is_learned and self.weighting_config.learner == "meta"

    def compute_gradients(
        self,
        batch: ClipBatch,
        meta_batch: ClipBatch | None = None,
        *,
        step: int = 0,
        measure_lookahead: bool = False,
    ) -> StepResult:
        """Leave the gradient of the weighted loss in `.grad`; with a meta batch, step the weight net first.

        `batch` and `meta_batch` are this rank's parts. `step` is the step's number, by which dropout draws.
        measure_lookahead also reports the meta loss before the lookahead.
        """
        for parameter in self.parameters.values():
            parameter.grad = None  # the lookahead reads this step's gradient there
        tape = None if meta_batch is None else self._meta_step.new_tape(batch, meta_batch)
        draws = Draws(self._seed, step)
        encoded = EncodedBatch(
            self.model, batch, num_micro_batches=self.num_micro_batches, autocast=self.autocast, draws=draws, tape=tape
        )
        with self._statistics.kept():
            result = self._learn(encoded, batch, meta_batch, draws, tape, measure_lookahead)
        self._statistics.share()
        return replace(result, cosines=cosines_of(encoded.outputs))

    def _learn(
        self,
        encoded: EncodedBatch,
        batch: ClipBatch,
        meta_batch: ClipBatch | None,
        draws: Draws,
        tape: Tape | None,
        measure_lookahead: bool,
    ) -> StepResult:
        if self.dials is not None:
            batch = self.dials.see(encoded.outputs, batch)
        terms = self._terms(encoded.outputs, batch)
        losses = self._weighted(terms)
        global_losses, valid, is_padding = gather_with_validity(losses, batch, self._num_losses)
        inputs = None if self._inputs is None else self._inputs.gather(encoded.outputs, batch, global_losses, valid)
        judged = Judged(global_losses, valid, inputs)
        weights = self._weights(judged).detach()
        gradients = self._output_gradients(encoded.outputs, losses, weights)
        scalars = mean_terms(terms, batch) if len(terms) > 1 else {}
        if meta_batch is not None:
            columns = losses if self.dials is None else self._columns_of(encoded.outputs, batch).detach()
            seen = TrainingPass(batch, encoded.outputs, columns, draws, self.autocast, tape)
            derivatives, told = self._meta_step.derivatives(
                seen, meta_batch, self._lookahead_gradients(encoded, gradients), measure_lookahead=measure_lookahead
            )
            scalars |= told | self._learn_from(derivatives, judged, weights)
            if self.meta.arrangement == "faithful":
                weights = self._weights(judged).detach()
                if self.dials is not None:
                    batch = self.dials.turn(batch)
                    losses = self._losses_of(encoded.outputs, batch)
                self._backward(encoded, self._output_gradients(encoded.outputs, losses, weights))
        else:
            self._backward(encoded, gradients)
            if self.is_learned and self.weighting_config.learner == "joint":
                self._step_weight_net(self._weights(judged), -global_losses)
        result = self._result(global_losses, weights, valid, is_padding, scalars)
        return replace(result, inputs=inputs, shares=shares_of(self.objective, batch))

    def _learn_from(self, derivatives: Tensor, judged: Judged, weights: Tensor) -> dict[str, Tensor]:
        """Move the weight net and the dials along the meta loss's gradient; returns what is to be reported."""
        told = {}
        if self.dials is not None:
            told = self.dials.step_(weights, derivatives[:, 1:])
            derivatives = derivatives[:, 0]
        if self._weights_by_meta:
            told |= self._step_weight_net(self._weights(judged), derivatives)
        return told

    def _lookahead_gradients(self, encoded: EncodedBatch, gradients: Outputs) -> dict[str, Tensor]:
        """Return the gradients, over all ranks, of the parameters that the lookahead moves.

        Shared, they are those of the real step, which are left in `.grad`.
        """
        moved = self._meta_step.parameters
        if self.meta.arrangement == "faithful":
            own = encoded.parameter_gradients(gradients, list(moved.values()))
            return dict(zip(moved, all_reduce(own), strict=True))
        self._backward(encoded, gradients)
        return {name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in moved.items()}

    def _terms(self, outputs: Outputs, batch: ClipBatch) -> tuple[Tensor, ...]:
        if isinstance(self.objective, TrainingObjective) and self.objective.has_task:
            return self.objective.terms(outputs, batch)
        return (self.objective(outputs, batch),)

    def _weighted(self, terms: tuple[Tensor, ...]) -> Tensor:
        """Return what weights multiply: the clips' losses, or their terms behind each other."""
        if self._num_losses > 1:
            return line_up(terms)
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def _clip_inputs(self, num_samples: int | None) -> ClipInputs:
        contrastive = self.objective
        if isinstance(contrastive, TrainingObjective):
            contrastive = contrastive.contrastive
        directions = contrastive.directions if isinstance(contrastive, ContrastiveObjective) else None
        device = unwrap(self.model).model.logit_scale.device
        return ClipInputs(self.weighting_config, directions=directions, num_samples=num_samples, device=device)

    def _weights(self, judged: Judged) -> Tensor:
        losses, valid, inputs = judged
        if self._num_losses > 1:
            return compute_term_weights(self.weighting, losses, self.weighting_config, valid=valid)
        normalisation = self.weighting_config.normalisation
        return compute_sample_weights(self.weighting, losses, normalisation, valid=valid, inputs=inputs)

    def _output_gradients(self, outputs: Outputs, losses: Tensor, weights: Tensor) -> Outputs:
        own = weights[rank() * len(losses) : (rank() + 1) * len(losses)]
        return gradients_at(outputs, (own.to(losses.dtype) * losses).sum(), retain_graph=True)

    def _backward(self, encoded: EncodedBatch, gradients: Outputs) -> None:
        if self.model is not unwrap(self.model):  # DDP averages over ranks, while the weighted loss is a sum over them
            gradients = remake(gradients, (gradient * world_size() for gradient in gradients))
        encoded.backward(gradients)

    def _functional_losses(self, parameters, batch: ClipBatch, *, draws: Draws | None = None) -> Tensor:
        outputs = encode_functionally(
            unwrap(self.model),
            parameters,
            batch,
            num_micro_batches=self.num_micro_batches,
            autocast=self.autocast,
            draws=draws or Draws(self._seed),
        )
        return self._losses_of(outputs, batch)

    def _losses_of(self, outputs: Outputs, batch: ClipBatch) -> Tensor:
        return self._weighted(self._terms(outputs, batch))

    def _columns_of(self, outputs: Outputs, batch: ClipBatch) -> Tensor:
        """Return the losses, or with dials columns of the losses and of their slopes."""
        losses = self._losses_of(outputs, batch)
        if self.dials is None:
            return losses
        return torch.stack([losses, *self.dials.slopes(outputs, batch)], dim=1)

    def _step_weight_net(self, weights: Tensor, derivatives: Tensor) -> dict[str, Tensor]:
        """Move the weight net; returns the norm of its gradient, which is that of the meta loss at the lookahead."""
        objective = -(weights * derivatives.to(weights.dtype)).sum()
        if not objective.requires_grad:  # the weights fell back to uniform ones: nothing to learn from
            return {"meta/hypergradient_norm": torch.zeros_like(objective)}
        self.weight_optimizer.zero_grad(set_to_none=True)
        objective.backward()
        gradients = {name: value.grad for name, value in self.weighting.named_parameters() if value.grad is not None}
        self.weight_optimizer.step()
        return {"meta/hypergradient_norm": norm_of(gradients)}

    def _result(
        self, losses: Tensor, weights: Tensor, valid: Tensor, is_padding: Tensor, scalars: dict[str, Tensor]
    ) -> StepResult:
        if self._num_losses > 1:
            losses, weights = sum_terms(losses, weights)
            valid, is_padding = of_clips(valid), of_clips(is_padding)
        num_valid = valid.sum().clamp(min=1)
        scalars |= {
            "train/loss": (weights * losses).sum(),
            "train/unweighted_loss": losses.sum() / num_valid,
            "weights/effective_sample_size": effective_sample_size(weights) / num_valid,
            "weights/min": weights.masked_fill(is_padding, torch.inf).min() * num_valid,
            "weights/max": weights.max() * num_valid,
            "data/num_valid": valid.sum(),
            "data/num_invalid": (~(valid | is_padding)).sum(),
        }
        return StepResult(losses, weights, scalars)
