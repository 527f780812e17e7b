"""The loop: batches in, records out. Ray supplies the real iterators, a test passes two lists and `list.append`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mama_ray.data.batch import ClipBatch
from mama_ray.training.optim import learning_rate_at, set_learning_rate
from mama_ray.training.state import TrainState
from mama_ray.weighting.step import StepResult
from mama_ray.weighting.weight_net import SelfPaced


@dataclass(frozen=True)
class StepRecord:
    """What happened in one step; tensors stay on the device until somebody reads them.

    `losses` and `weights` are those of the global batch, in its order: padding is no part of them, nor of the scalars.
    `cosines` and `valid` are of this rank's `rows`, its padding among them; cosines are None where nothing pairs up.
    `inputs` of the global batch are there where the weight net sees more than the loss, `shares` where clips are
    learned from by two texts: that of the generated one, NaN of a clip without.
    """

    step: int
    rows: Int[Tensor, "local"]
    losses: Float[Tensor, "global"]
    weights: Float[Tensor, "global"]
    scalars: dict[str, Tensor | float]
    cosines: Float[Tensor, "local"] | None
    valid: Bool[Tensor, "local"]
    inputs: Float[Tensor, "global inputs"] | None = None
    shares: Float[Tensor, "global"] | None = None


def train(
    state: TrainState,
    batches: Iterable[ClipBatch],
    meta_batches: Iterator[ClipBatch] | Iterable[ClipBatch],
    *,
    report: Callable[[StepRecord], None],
    measure_every: int = 0,
) -> None:
    """Take one step per batch until the batches or the run end; `report` is called after each.

    meta_batches is asked for one batch per meta step. At the first meta step of every `measure_every` steps (0: never)
    the meta loss is also taken before the lookahead, which costs one more forward pass on the meta batch.
    """
    meta_batches = iter(meta_batches)
    for batch in batches:
        if state.step >= state.num_steps:
            return
        is_meta_step = state.weighted_step.is_meta_step(state.step)
        meta_batch = next(meta_batches) if is_meta_step else None
        step, before = state.step, state.step - state.weighted_step.meta.meta_every
        measures = bool(measure_every) and step // measure_every != before // measure_every
        report(train_step(state, batch, meta_batch, measure_lookahead=measures))


def train_step(
    state: TrainState, batch: ClipBatch, meta_batch: ClipBatch | None, *, measure_lookahead: bool = False
) -> StepRecord:
    """Take one step of the model (and on a meta step, of the weight net) and advance the state."""
    learning_rate = learning_rate_at(state.step, state.num_steps, state.optim)
    set_learning_rate(state.optimizer, learning_rate)
    if isinstance(state.weighting, SelfPaced):
        state.weighting.set_progress(state.step / max(1, state.num_steps))
    result = state.weighted_step.compute_gradients(
        batch, meta_batch, step=state.step, measure_lookahead=measure_lookahead
    )
    result = _without_padding(result, state.global_batch_size)
    scalars: dict[str, Tensor | float] = dict(result.scalars)
    parameters = list(state.weighted_step.parameters.values())
    max_norm = state.optim.clip_norm or float("inf")
    scalars["train/gradient_norm"] = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    state.optimizer.step()
    state.model.clamp_logit_scale_()
    if state.ema is not None:
        state.ema.update_parameters(state.model)
    if state.head_ema is not None:
        state.head_ema.update_parameters(state.head)
    scalars["train/learning_rate"] = learning_rate
    scalars["train/logit_scale"] = state.model.logit_scale.detach().exp()
    if state.feature_model.bias is not None:
        scalars["train/logit_bias"] = state.feature_model.bias.detach().clone()
    seen = result.cosines, batch.valid, result.inputs, result.shares
    record = StepRecord(state.step, batch.rows, result.losses, result.weights, scalars, *seen)
    state.step += 1
    return record


def _without_padding(result: StepResult, size: int) -> StepResult:
    """Drop what comes after the global batch where the ranks' batches are joined: padding, without loss and weight."""
    if len(result.losses) <= size:
        return result
    inputs, shares = (None if part is None else part[:size] for part in (result.inputs, result.shares))
    return replace(result, losses=result.losses[:size], weights=result.weights[:size], inputs=inputs, shares=shares)
