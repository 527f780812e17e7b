"""A model's outputs for a batch with a handle on their graph, so that a loss on them can be sent back once, twice, in
parts.

The loss sees outputs as leaves. Its gradient at them is sent back through the model in one piece, or, micro-batch by
micro-batch, through a model run anew (cached gradients): then the global batch does not depend on activation memory and
the result equals the unsplit one to rounding.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mama_ray.data.batch import ClipBatch
from mama_ray.models.dual_encoder import BiasedEncoder, DualEncoder
from mama_ray.objectives.objective import (
    Features,
    Outputs,
    OutputsT,
    PairedFeatures,
    join_outputs,
    remake,
    split_outputs,
)
from mama_ray.weighting.chosen_clips import ChosenClips
from mama_ray.weighting.draws import Draws
from mama_ray.weighting.tape import Tape

Autocast = Callable[[], AbstractContextManager]


class FeatureModel(nn.Module):
    """A dual encoder as a step runs it: one forward call gives all that an objective reads and owns all parameters (DDP
    needs it). A head is a subclass with parameters of its own and outputs beside these.
    """

    def __init__(self, model: DualEncoder, *, logit_bias: float | None = None):
        """Wrap a model; with a `logit_bias` it gets a bias that starts there, unless it has one of its own."""
        super().__init__()
        self.model = model
        needs_bias = logit_bias is not None and not isinstance(model, BiasedEncoder)
        bias = nn.Parameter(torch.full_like(model.logit_scale, logit_bias)) if needs_bias else None
        self.register_parameter("logit_bias", bias)

    @property
    def bias(self) -> Tensor | None:
        """The learned bias of the logits: the model's own, else the one given to it here."""
        return self.model.logit_bias if isinstance(self.model, BiasedEncoder) else self.logit_bias

    def forward(self, batch: ClipBatch) -> Any:
        """Return `Features`, with two texts `PairedFeatures`; a subclass what its objective reads, Outputs any way."""
        return self.with_second(self.with_scale(*self.model(batch.frames, batch.token_ids)), batch)

    @property
    def encodes_texts_apart(self) -> bool:
        """Whether texts are encoded for themselves and nothing else is: not where a subclass has outputs of its own."""
        return type(self).forward is FeatureModel.forward

    def with_scale(self, video: Tensor, text: Tensor) -> Features:
        """Return features with the model's scale and bias."""
        scale = self.model.logit_scale.view(()) * 1.0
        bias = self.bias
        return Features(video, text, scale, torch.zeros_like(scale) if bias is None else bias.view(()) * 1.0)

    def with_second(self, features: Features, batch: ClipBatch) -> Features | PairedFeatures:
        """Return features with those of the batch's generated captions, where it has such."""
        if batch.generated_ids is None:
            return features
        return PairedFeatures(*features, self.model.encode_text(batch.generated_ids))

    def own_state(self) -> dict[str, Tensor]:
        """Return the weights that are no part of the model's folder, by name."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(("model.", "head."))}

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy such weights; RuntimeError where they are not exactly those that there are."""
        own = self.own_state()
        others = {name: value for name, value in self.state_dict().items() if name not in own}
        self.load_state_dict({**others, **state})


def unwrap(model: nn.Module) -> FeatureModel:
    """Return the module inside DDP: functional calls and forward mode cannot pass through the wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def split_batch(batch: ClipBatch, num_parts: int) -> list[ClipBatch]:
    """Split along the batch axis into parts of nearly equal size, at most as many as there are clips."""
    bounds = [len(batch) * part // num_parts for part in range(num_parts + 1)]
    parts = [batch[start:end] for start, end in pairwise(bounds) if end > start]
    return parts or [batch]


def encode_functionally(
    model: FeatureModel,
    parameters: Mapping[str, Tensor],
    batch: ClipBatch,
    *,
    num_micro_batches: int,
    autocast: Autocast,
    draws: Draws = Draws(),  # noqa: B008  frozen
    chosen: ChosenClips | None = None,
) -> Outputs:
    """Encode with the given parameters in place of the module's own.

    With `chosen` clips it encodes these alone, and where the model has texts apart all texts; dropout leaves them what
    it leaves them in the pass over all.
    """
    outputs, chunks = [], split_batch(batch, num_micro_batches)
    parts = [None] * len(chunks) if chosen is None else chosen.split([len(chunk) for chunk in chunks])
    for position, (chunk, part) in enumerate(zip(chunks, parts, strict=True)):
        if part is not None and not len(part.rows) and not model.encodes_texts_apart:
            continue
        with autocast(), draws.of_part(position, len(chunks), batch.rows.device):
            if part is None:
                outputs.append(torch.func.functional_call(model, dict(parameters), (chunk,)))
            else:
                prefixed = {f"features.{name}": value for name, value in parameters.items()}
                outputs.append(torch.func.functional_call(_OfPart(model), prefixed, (chunk, part)))
    return join_outputs(outputs)


class _OfPart(nn.Module):
    """Encodes a part of a batch's clips."""

    def __init__(self, features: FeatureModel):
        super().__init__()
        self.features = features

    def forward(self, batch: ClipBatch, part: ChosenClips) -> Outputs:
        features = self.features
        if not features.encodes_texts_apart:
            with part.drop_as_whole():
                return features(batch.select(part.rows))
        rows = part.rows if len(part.rows) else torch.zeros(1, dtype=torch.long)
        with ChosenClips(rows, part.num_clips).drop_as_whole():
            video = features.model.encode_video(batch.frames.index_select(0, rows.to(batch.frames.device)))
        of_texts = features.with_scale(video[: len(part.rows)], features.model.encode_text(batch.token_ids))
        return features.with_second(of_texts, batch)


class EncodedBatch:
    """The outputs for a batch and the means to send gradients back into the model's parameters.

    `tape` records the linear layers of an unsplit batch, for a directional pass later.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: ClipBatch,
        *,
        num_micro_batches: int,
        autocast: Autocast,
        draws: Draws = Draws(),  # noqa: B008  frozen
        tape: Tape | None = None,
    ):
        self._model = model
        self._autocast, self._draws = autocast, draws
        self._chunks = split_batch(batch, num_micro_batches)
        if len(self._chunks) == 1:
            with nullcontext() if tape is None else tape.record(unwrap(model)):
                self._graph = self._encode(model, 0)
            encoded = self._graph
        else:
            self._graph = None
            with torch.no_grad():
                encoded = join_outputs([self._encode(model, position) for position in range(len(self._chunks))])
        self.outputs = remake(encoded, (part.detach().requires_grad_() for part in encoded))

    def _encode(self, model: nn.Module, position: int) -> Outputs:
        chunk = self._chunks[position]
        with self._autocast(), self._draws.of_part(position, len(self._chunks), chunk.rows.device):
            return model(chunk)

    def backward(self, gradients: Outputs) -> None:
        """Accumulate into `.grad`; under DDP the result is reduced over ranks once, while the backward pass runs."""
        if self._graph is not None:
            torch.autograd.backward(*_differentiable(self._graph, gradients))
            return
        for position, gradient in enumerate(self._parts_of(gradients)):
            is_last = position == len(self._chunks) - 1
            reduces_later = isinstance(self._model, DistributedDataParallel) and not is_last
            with self._model.no_sync() if reduces_later else nullcontext():
                torch.autograd.backward(*_differentiable(self._encode(self._model, position), gradient))

    def parameter_gradients(self, gradients: Outputs, parameters: list[Tensor]) -> list[Tensor]:
        """Return this rank's gradients without touching `.grad`, keeping the graph for a later backward pass."""
        if self._graph is not None:
            outputs, cotangents = _differentiable(self._graph, gradients)
            return list(torch.autograd.grad(outputs, parameters, cotangents, retain_graph=True, materialize_grads=True))
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        for position, gradient in enumerate(self._parts_of(gradients)):
            outputs, cotangents = _differentiable(self._encode(unwrap(self._model), position), gradient)
            part = torch.autograd.grad(outputs, parameters, cotangents, materialize_grads=True)
            torch._foreach_add_(totals, part)
        return totals

    def _parts_of(self, gradients: Outputs) -> list[Outputs]:
        return split_outputs(gradients, [len(chunk) for chunk in self._chunks])


def cosines_of(outputs: Outputs) -> Tensor | None:
    """Return the cosine of each of this rank's clips and its own text, detached; None where they do not pair up."""
    video, text = outputs.video.detach(), outputs.text.detach()
    return (video.float() * text.float()).sum(dim=-1) if video.shape == text.shape else None


def gradients_at(outputs: OutputsT, loss: Tensor, *, retain_graph: bool = False) -> OutputsT:
    """Return a loss's gradients at the outputs; zero at one that it does not read."""
    leaves = tuple(outputs)
    gradients = torch.autograd.grad(loss, leaves, retain_graph=retain_graph, allow_unused=True, materialize_grads=True)
    return remake(outputs, gradients)


def _differentiable(outputs: Outputs, gradients: Outputs) -> tuple[list[Tensor], list[Tensor]]:
    """Leave out what has no graph: the features of a frozen tower, a frozen logit scale."""
    pairs = [(value, gradient) for value, gradient in zip(outputs, gradients, strict=True) if value.requires_grad]
    return [value for value, _ in pairs], [gradient for _, gradient in pairs]
