"""What a pass of a step must not draw or note anew: the masks of dropout, and the running statistics of BatchNorm.

The hypergradient is that of one function of the parameters: the one that the training pass computed. So each part of a
batch has a seed of its own in each step, to which the generators are set before every pass over it; gradient
checkpointing draws the same again by itself. The seed knows the part's place in the global batch, not the rank: a run
on two workers has the masks of one worker that takes two micro-batches.

Running statistics are noted by the training pass alone. Every other pass works on copies of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from mama_ray.objectives.gather import rank, world_size

_STREAMS = {"train": 0, "meta": 1}


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch in one step: the same in every pass over it."""

    seed: int = 0
    step: int = 0
    stream: Literal["train", "meta"] = "train"

    @contextmanager
    def of_part(self, part: int, num_parts: int, device: torch.device) -> Iterator[None]:
        """Draw what belongs to a part of this rank's batch, which has `num_parts`; afterwards the generators are as
        they were."""
        entropy = [self.seed, self.step, _STREAMS[self.stream], rank() * num_parts + part]
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        generators = _generators(device)
        states = [generator.get_state() for generator in generators]
        try:
            for generator in generators:
                generator.manual_seed(seed)
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


def _generators(device: torch.device) -> list[torch.Generator]:
    if device.type != "cuda":
        return [torch.default_generator]
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]


class RunningStatistics:
    """The running statistics of a model's normalisation layers; without such layers every call costs nothing."""

    def __init__(self, model: nn.Module):
        self._layers = [
            layer for layer in model.modules() if isinstance(layer, _NormBase) and layer.track_running_stats
        ]

    @property
    def are_kept(self) -> bool:
        """Whether there are any: then the outputs of a clip depend on the others of its batch."""
        return bool(self._layers)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leave them as they are, whatever passes through the model: it works on copies.

        Copies, and not layers without statistics: checkpointing asks for the very tensors of the first pass.
        """
        own: list[tuple[nn.Module, str, Tensor]] = [
            (layer, name, buffer)
            for layer in self._layers
            if layer.training
            for name, buffer in layer._buffers.items()
            if buffer is not None
        ]
        try:
            for layer, name, buffer in own:
                layer._buffers[name] = buffer.clone()
            yield
        finally:
            for layer, name, buffer in own:
                layer._buffers[name] = buffer

    def share(self) -> None:
        """Give all ranks the mean of theirs; each has normalised its own clips."""
        if world_size() == 1:
            return
        buffers: Sequence[Tensor] = [
            buffer
            for layer in self._layers
            if layer.training
            for buffer in (layer.running_mean, layer.running_var)
            if buffer is not None
        ]
        if not buffers:
            return
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
        dist.all_reduce(flat)
        parts = (flat / world_size()).split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
