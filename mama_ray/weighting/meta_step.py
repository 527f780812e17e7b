"""The meta step: lookahead, meta gradient there, and the derivatives c_i of the training losses along its adjoint."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mama_ray.data.batch import ClipBatch
from mama_ray.errors import UserError
from mama_ray.models.patterns import choose
from mama_ray.objectives.gather import gather_plain
from mama_ray.objectives.objective import Objective, Outputs
from mama_ray.weighting.drawn_tangents import draw_tangents
from mama_ray.weighting.draws import Draws, RunningStatistics
from mama_ray.weighting.features import encode_functionally, unwrap
from mama_ray.weighting.hypergradient import Parameters, directional_derivatives, estimated_derivatives, norm_of
from mama_ray.weighting.inner_step import take_lookahead
from mama_ray.weighting.meta_average import MetaAverage
from mama_ray.weighting.meta_gradient import MetaGradient, chance_of, compute_meta_gradient
from mama_ray.weighting.over_ranks import mean_over_ranks
from mama_ray.weighting.settings import MetaConfig
from mama_ray.weighting.tape import Tape


class TrainingPass(NamedTuple):
    """What a meta step reads of the training pass over this rank's clips."""

    batch: ClipBatch
    outputs: Outputs
    losses: Float[Tensor, "local *columns"]
    draws: Draws
    autocast: Callable[[], AbstractContextManager]
    tape: Tape | None


class MetaStep:
    """Binds model, objective and settings; has no state but an average of the meta gradient, if asked for.

    `parameters` are those that the lookahead moves, of all that are trained. `losses_of` are the losses that weights
    multiply, from outputs and batch, or columns of them and of what else goes along (`dials.py`).
    """

    def __init__(
        self,
        model: nn.Module,
        trained: Parameters,
        *,
        objective: Objective,
        losses_of: Callable[[Outputs, ClipBatch], Float[Tensor, "local *columns"]],
        meta: MetaConfig,
        optimizer: torch.optim.Optimizer | None,
        num_micro_batches: int,
    ):
        self.model, self.objective, self.losses_of, self.meta = model, objective, losses_of, meta
        self.optimizer, self.num_micro_batches = optimizer, num_micro_batches
        self.parameters = choose_parameters(trained, meta.inner.parameters)
        self.average = MetaAverage(self.parameters, meta.gradient_decay) if meta.gradient_decay else None
        if meta.tangent_share < 1 and RunningStatistics(model).are_kept:
            raise UserError(
                "meta.tangent_share takes clips one by one, but batch normalisation couples those of a batch",
                got=f"{meta.tangent_share:g}",
                wanted="1, or a model without batch normalisation",
            )

    def new_tape(self, batch: ClipBatch, meta_batch: ClipBatch) -> Tape | None:
        """Return a tape where the directional pass may use the training pass's products without more memory than a
        plain step.

        They are less than half of the training graph, which the meta batch's graph joins when the former is gone.
        """
        if self.meta.hypergradient != "forward_mode" or self.num_micro_batches > 1:
            return None
        if unwrap(self.model).model.gradient_checkpointing:
            return None
        if self.meta.tangent_share < 1 and batch.places is not None:  # a clip's rows are not those of its questions
            return None
        has_room = self.meta.arrangement == "faithful" or 2 * len(meta_batch) <= len(batch)
        return Tape(self.parameters) if has_room else None

    def derivatives(
        self, seen: TrainingPass, meta_batch: ClipBatch, gradients: dict[str, Tensor], *, measure_lookahead: bool
    ) -> tuple[Float[Tensor, "global *columns"], dict[str, Tensor]]:
        """Return c_i of the clips of all ranks, and what is to be reported of the meta step.

        `gradients` are those of the lookahead, reduced over ranks. measure_lookahead also reports the meta loss before
        it.
        """
        model = unwrap(self.model)
        # No more activations at once than a micro-batch of the training batch has.
        num_parts = -(-len(meta_batch) * self.num_micro_batches // max(1, len(seen.batch)))
        of_meta = {"num_micro_batches": num_parts, "autocast": seen.autocast}
        of_meta["draws"] = replace(seen.draws, stream="meta")
        found, direction = self._direction(meta_batch, gradients, of_meta)
        del gradients  # a copy of the parameters
        derivatives = gather_plain(self._along(direction, seen).detach())
        scalars = {"meta/loss": found.loss, "meta/direction_norm": norm_of(direction)}
        if found.shares is not None:
            scalars |= dict(zip(("meta/above_chance", "meta/below_half_chance"), found.shares, strict=True))
        if measure_lookahead:
            with torch.no_grad():
                outputs = encode_functionally(model, self.parameters, meta_batch, **of_meta)
                before = mean_over_ranks(self.objective(outputs, meta_batch), meta_batch)
            scalars["meta/loss_before_lookahead"] = before
        return derivatives, scalars

    def _direction(
        self, meta_batch: ClipBatch, gradients: dict[str, Tensor], of_meta: dict
    ) -> tuple[MetaGradient, dict[str, Tensor]]:
        """Return what the meta batch gives at the lookahead and v, the adjoint of its gradient."""
        model = unwrap(self.model)
        ahead = take_lookahead(
            self.parameters,
            gradients,
            self.meta.inner,
            optimizer=self.optimizer,
            named_parameters=self.parameters,
            bounds={"model.logit_scale": model.model.logit_scale_bounds},
        )
        chance = chance_of(self.objective, self.meta.batch_size)
        found = compute_meta_gradient(model, ahead.parameters, meta_batch, self.objective, **of_meta, chance=chance)
        if self.average is not None:
            self.average.average_(found.gradients)
        return found, ahead.adjoint(found.gradients)

    def _along(self, direction: Parameters, seen: TrainingPass) -> Float[Tensor, "local *columns"]:
        """Return c_i of this rank's clips, exact or estimated."""
        model, batch = unwrap(self.model), seen.batch
        options = {
            "num_micro_batches": self.num_micro_batches, "autocast": seen.autocast, "draws": seen.draws,
        }  # fmt: skip
        if self.meta.tangent_share == 1:
            return directional_derivatives(
                lambda values: self.losses_of(encode_functionally(model, values, batch, **options), batch),
                self.parameters,
                direction,
                self.meta.hypergradient,
                base_losses=seen.losses,
                tape=seen.tape,
            )
        draw = draw_tangents(batch.valid, self.meta.tangent_share, seen.draws)
        return estimated_derivatives(
            lambda values: encode_functionally(model, values, batch, chosen=draw.chosen, **options),
            lambda outputs: self.losses_of(outputs, batch),
            seen.outputs,
            self.parameters,
            direction,
            draw,
            has_all_texts=model.encodes_texts_apart,
            tape=seen.tape,
        )


def choose_parameters(trained: Parameters, patterns: tuple[str, ...]) -> dict[str, Tensor]:
    """Return those of the trained parameters that fit one of the patterns; all without patterns.

    Names are those of the model, as model.freeze has them, and head.* for a head's. UserError for a pattern that fits
    none.
    """
    if not patterns:
        return dict(trained)
    names = {name.removeprefix("model."): name for name in trained}
    found = choose("meta.inner.parameters", patterns, list(names), kind="trained parameter")
    return {names[name]: trained[names[name]] for name in found}
