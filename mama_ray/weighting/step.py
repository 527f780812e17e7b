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

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mama_ray.data.batch import PADDING_ROW, ClipBatch
from mama_ray.objectives.gather import gather_plain, rank, world_size
from mama_ray.objectives.objective import Objective, Outputs, TrainingObjective, remake
from mama_ray.weighting.directional import Tape
from mama_ray.weighting.draws import Draws, RunningStatistics
from mama_ray.weighting.features import Autocast, EncodedBatch, cosines_of, encode_functionally, gradients_at, unwrap
from mama_ray.weighting.hypergradient import directional_derivatives, norm_of
from mama_ray.weighting.inner_step import take_lookahead
from mama_ray.weighting.meta_average import MetaAverage
from mama_ray.weighting.meta_gradient import compute_meta_gradient
from mama_ray.weighting.settings import MetaConfig, WeightingConfig
from mama_ray.weighting.terms import NUM_TERMS, compute_term_weights, line_up, of_clips, sum_terms
from mama_ray.weighting.weight_net import compute_sample_weights, effective_sample_size


@dataclass(frozen=True)
class StepResult:
    """What one step saw, over the global batch, cosines of this rank's clips alone; everything detached."""

    losses: Float[Tensor, "global"]
    weights: Float[Tensor, "global"]
    scalars: dict[str, Tensor]
    cosines: Float[Tensor, " local"] | None = None


class WeightedStep:
    """Binds a model, its objective and a weighting; has no state but an average of the meta gradient, if asked for."""

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
    ):
        self.model, self.weighting = model, weighting
        self.objective, self.weighting_config, self.meta = objective, weighting_config, meta
        self.optimizer, self.weight_optimizer = optimizer, weight_optimizer
        self.num_micro_batches, self.autocast = num_micro_batches, autocast
        self.parameters = {name: value for name, value in unwrap(model).named_parameters() if value.requires_grad}
        self.meta_average = MetaAverage(self.parameters, meta.gradient_decay) if meta.gradient_decay else None
        self._seed, self._statistics = seed, RunningStatistics(model)
        has_task = isinstance(objective, TrainingObjective) and objective.has_task
        self._num_losses = NUM_TERMS if has_task and weighting_config.weighted_term != "sum" else 1

    @property
    def is_learned(self) -> bool:
        """Whether the weighting has parameters to train."""
        return self.weight_optimizer is not None

    def is_meta_step(self, step: int) -> bool:
        """Whether step number `step` trains the weight net on the meta-set."""
        return self.is_learned and self.weighting_config.learner == "meta" and step % self.meta.meta_every == 0

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
        tape = Tape() if meta_batch is not None and self._keeps_primals(batch, meta_batch) else None
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
        terms = self._terms(encoded.outputs, batch)
        losses = self._weighted(terms)
        global_losses, valid, is_padding = _gather_with_validity(losses, batch, self._num_losses)
        weights = self._weights(global_losses, valid).detach()
        gradients = self._output_gradients(encoded.outputs, losses, weights)
        scalars = _mean_terms(terms, batch) if len(terms) > 1 else {}
        if meta_batch is not None:
            if self.meta.arrangement == "faithful":
                own = encoded.parameter_gradients(gradients, list(self.parameters.values()))
                lookahead_gradients = dict(zip(self.parameters, _all_reduce(own), strict=True))
            else:
                self._backward(encoded, gradients)
                lookahead_gradients = {
                    name: torch.zeros_like(value) if value.grad is None else value.grad
                    for name, value in self.parameters.items()
                }
            scalars |= self._meta_step(
                batch, meta_batch, lookahead_gradients, losses, global_losses, valid, draws, measure_lookahead, tape
            )
            if self.meta.arrangement == "faithful":
                weights = self._weights(global_losses, valid).detach()
                self._backward(encoded, self._output_gradients(encoded.outputs, losses, weights))
        else:
            self._backward(encoded, gradients)
            if self.is_learned and self.weighting_config.learner == "joint":
                self._step_weight_net(self._weights(global_losses, valid), -global_losses)
        return self._result(global_losses, weights, valid, is_padding, scalars)

    def _keeps_primals(self, batch: ClipBatch, meta_batch: ClipBatch) -> bool:
        """Whether the directional pass may use the training pass's products without more memory than a plain step.

        They are less than half of the training graph, which the meta batch's graph joins when the former is gone.
        """
        if self.meta.hypergradient != "forward_mode" or self.num_micro_batches > 1:
            return False
        if unwrap(self.model).model.gradient_checkpointing:
            return False
        return self.meta.arrangement == "faithful" or 2 * len(meta_batch) <= len(batch)

    def _terms(self, outputs: Outputs, batch: ClipBatch) -> tuple[Tensor, ...]:
        if isinstance(self.objective, TrainingObjective) and self.objective.has_task:
            return self.objective.terms(outputs, batch)
        return (self.objective(outputs, batch),)

    def _weighted(self, terms: tuple[Tensor, ...]) -> Tensor:
        """Return what weights multiply: the clips' losses, or their terms behind each other."""
        if self._num_losses > 1:
            return line_up(terms)
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def _weights(self, global_losses: Tensor, valid: Tensor) -> Tensor:
        if self._num_losses > 1:
            return compute_term_weights(self.weighting, global_losses, self.weighting_config, valid=valid)
        return compute_sample_weights(self.weighting, global_losses, self.weighting_config.normalisation, valid=valid)

    def _output_gradients(self, outputs: Outputs, losses: Tensor, weights: Tensor) -> Outputs:
        own = weights[rank() * len(losses) : (rank() + 1) * len(losses)]
        return gradients_at(outputs, (own.to(losses.dtype) * losses).sum(), retain_graph=True)

    def _backward(self, encoded: EncodedBatch, gradients: Outputs) -> None:
        if self.model is not unwrap(self.model):  # DDP averages over ranks, while the weighted loss is a sum over them
            gradients = remake(gradients, (gradient * world_size() for gradient in gradients))
        encoded.backward(gradients)

    def _meta_step(
        self,
        batch: ClipBatch,
        meta_batch: ClipBatch,
        lookahead_gradients: dict[str, Tensor],
        losses: Tensor,
        global_losses: Tensor,
        valid: Tensor,
        draws: Draws,
        measure_lookahead: bool,
        tape: Tape | None,
    ) -> dict[str, Tensor]:
        model = unwrap(self.model)
        ahead = take_lookahead(
            self.parameters,
            lookahead_gradients,
            self.meta.inner,
            optimizer=self.optimizer,
            named_parameters=self.parameters,
            bounds={"model.logit_scale": model.model.logit_scale_bounds},
        )
        # No more activations at once than a micro-batch of the training batch has.
        num_parts = -(-len(meta_batch) * self.num_micro_batches // max(1, len(batch)))
        of_meta = {"num_micro_batches": num_parts, "autocast": self.autocast, "draws": replace(draws, stream="meta")}
        meta_loss, meta_gradients = compute_meta_gradient(
            model, ahead.parameters, meta_batch, self.objective, **of_meta
        )
        if self.meta_average is not None:
            self.meta_average.average_(meta_gradients)
        direction = ahead.adjoint(meta_gradients)
        del ahead, lookahead_gradients, meta_gradients  # copies of the parameters
        derivatives = directional_derivatives(
            lambda parameters: self._functional_losses(parameters, batch, draws=draws),
            self.parameters,
            direction,
            self.meta.hypergradient,
            base_losses=losses,
            tape=tape,
        )
        derivatives = gather_plain(derivatives.detach())
        norms = self._step_weight_net(self._weights(global_losses, valid), derivatives)
        scalars = {"meta/loss": meta_loss, "meta/direction_norm": norm_of(direction), **norms}
        if measure_lookahead:
            with torch.no_grad():
                outputs = encode_functionally(model, self.parameters, meta_batch, **of_meta)
                before = _mean_over_ranks(self.objective(outputs, meta_batch), meta_batch)
            scalars["meta/loss_before_lookahead"] = before
        return scalars

    def _functional_losses(self, parameters, batch: ClipBatch, *, draws: Draws | None = None) -> Tensor:
        outputs = encode_functionally(
            unwrap(self.model),
            parameters,
            batch,
            num_micro_batches=self.num_micro_batches,
            autocast=self.autocast,
            draws=draws or Draws(self._seed),
        )
        return self._weighted(self._terms(outputs, batch))

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
            "data/num_invalid": (~(valid | is_padding)).sum(),
        }
        return StepResult(losses, weights, scalars)


def _all_reduce(tensors: list[Tensor]) -> list[Tensor]:
    """Sum a list of tensors over ranks in one collective."""
    if world_size() == 1:
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def _gather_with_validity(
    losses: Tensor, batch: ClipBatch, num_losses: int = 1
) -> tuple[Float[Tensor, "global"], Bool[Tensor, "global"], Bool[Tensor, "global"]]:
    """Return the losses of all ranks, which are of valid clips, and which of padding."""
    standing = batch.valid.to(losses.dtype) - (batch.rows == PADDING_ROW).to(losses.dtype)
    gathered = gather_plain(torch.stack([losses.detach(), standing.repeat(num_losses)], dim=1))
    return gathered[:, 0], gathered[:, 1] > 0, gathered[:, 1] < 0


def _mean_terms(terms: tuple[Tensor, ...], batch: ClipBatch) -> dict[str, Tensor]:
    sums = torch.stack([*(term.detach().sum() for term in terms), batch.valid.sum().to(terms[0].dtype)])
    contrastive, task, num_valid = gather_plain(sums[None]).sum(0).unbind()
    num_valid = num_valid.clamp(min=1)
    return {"train/contrastive_loss": contrastive / num_valid, "train/task_loss": task / num_valid}


def _mean_over_ranks(losses: Tensor, batch: ClipBatch) -> Tensor:
    losses, valid, _ = _gather_with_validity(losses, batch)
    return losses.sum() / valid.sum().clamp(min=1)
