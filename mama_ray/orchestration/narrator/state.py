"""What a step of a narrator's training changes, how it changes it, and how it is saved and found again."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mama_ray.captioning.narrator.kind import IGNORED, NarratorLoss, TaughtNarrator
from mama_ray.captioning.narrator.settings import NarratorInput
from mama_ray.models.host_copy import Buffers, copy_to_host
from mama_ray.models.weight_files import read_torch_file
from mama_ray.objectives.gather import gather_plain, world_size
from mama_ray.training.checkpoint import (
    CapturedOptimizer,
    check_data_cursor,
    encode_rng_state,
    read_train_state,
    restore_rng_state,
    state_errors,
    write_optimizer,
)
from mama_ray.training.optim import learning_rate_at
from mama_ray.training.settings import OptimConfig


@dataclass(frozen=True)
class StepDraws:
    """The random numbers of dropout: a pure function of seed, step and rank, so a run that goes on draws the same."""

    seed: int = 0
    rank: int = 0

    def begin(self, step: int) -> None:
        """Set torch's generators, of all devices, for one step."""
        words = np.random.SeedSequence((self.seed, step, self.rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0]))


@dataclass
class NarratorState:
    """A narrator in training.

    Attributes:
        loss: gives the summed loss of pictures and labels; DDP's wrapping of it inside a process group.
        autocast: what the forward pass runs under.
    """

    narrator: TaughtNarrator
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    optim: OptimConfig
    num_steps: int
    global_batch_size: int
    num_micro_batches: int
    autocast: Callable[[], AbstractContextManager]
    step: int = 0
    draws: StepDraws = StepDraws()

    @property
    def plain_loss(self) -> NarratorLoss:
        """The loss itself, out of DDP's wrapping."""
        loss = self.loss.module if isinstance(self.loss, DistributedDataParallel) else self.loss
        return cast(NarratorLoss, loss)

    @property
    def samples_seen(self) -> int:
        """The data cursor: global batch t is rows [t * G, (t + 1) * G) of the epoch plan."""
        return self.step * self.global_batch_size


def train_step(state: NarratorState, pictures: Tensor, labels: Tensor) -> dict[str, Tensor | float]:
    """Take one step on this rank's part of the batch; labels of clips that could not be read are all IGNORED.

    The loss is the mean over the global batch, whatever the number of ranks and micro-batches: over its tokens, or over
    what the narrator's loss says instead.
    """
    state.draws.begin(state.step)
    learning_rate = learning_rate_at(state.step, state.num_steps, state.optim)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    num_tokens = gather_plain((labels != IGNORED).sum()[None]).sum().clamp_min(1)
    num_places = gather_plain(state.plain_loss.num_places(labels)[None]).sum().clamp_min(1)
    scale = world_size() / num_places  # DDP takes the mean of the ranks' gradients
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=pictures.device)
    parts = list(zip(pictures.chunk(state.num_micro_batches), labels.chunk(state.num_micro_batches), strict=True))
    for number, (some_pictures, some_labels) in enumerate(parts):
        with _exchanging(state.loss, number == len(parts) - 1):
            with state.autocast():
                loss = state.loss(some_pictures, some_labels)
            (loss * scale).backward()
        total += loss.detach()
    trained = [parameter for parameter in state.narrator.model.parameters() if parameter.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, state.optim.clip_norm or float("inf"))
    state.optimizer.step()
    state.step += 1
    return {
        "train/caption_loss": gather_plain(total[None]).sum() / num_tokens,
        "train/gradient_norm": norm,
        "train/learning_rate": learning_rate,
    }


def _exchanging(loss: nn.Module, is_last: bool) -> AbstractContextManager:
    """Let ranks exchange gradients after the last part alone, when they hold the sum of all parts."""
    return nullcontext() if is_last or not isinstance(loss, DistributedDataParallel) else loss.no_sync()


@dataclass(frozen=True)
class CapturedNarrator:
    """A narrator and what its run needs to go on, in host memory: training may go on while it is written."""

    narrator: TaughtNarrator
    weights: dict[str, Tensor]
    optimizer: CapturedOptimizer
    record: dict


def capture_state(
    state: NarratorState, *, validation: dict, captions: dict | None = None, buffers: Buffers | None = None
) -> CapturedNarrator:
    """Copy everything that a step changes; `buffers` hold the copy before, which is no longer needed.

    validation, captions: the metrics of this step's validation and the scores of its captions, for the record.
    """
    record = {
        "step": state.step,
        "samples_seen": state.samples_seen,
        "num_steps": state.num_steps,
        "global_batch_size": state.global_batch_size,
        "torch_rng_state": encode_rng_state(),
        "validation": validation,
        "captions": captions,
    }
    tree = {"model": dict(state.narrator.model.state_dict()), "optimizer": state.optimizer.state_dict()}
    copied = copy_to_host(tree, buffers)
    return CapturedNarrator(state.narrator, copied["model"], CapturedOptimizer(copied["optimizer"]), record)


def write_state(captured: CapturedNarrator, directory: Path, narrator_input: NarratorInput) -> None:
    """Write a model folder and beside it what the run needs to go on; `directory` exists."""
    captured.narrator.save(directory, narrator_input, captured.weights)
    write_optimizer(captured.optimizer, directory / "optimizer.pt")
    (directory / "train_state.json").write_text(json.dumps(captured.record, indent=1))


def load_state(state: NarratorState, directory: Path) -> None:
    """Fill a state whose model was loaded from the same checkpoint; UserError where the run's sizes differ."""
    record = read_train_state(directory)
    check_data_cursor(record, state)
    with state_errors(directory):
        state.optimizer.load_state_dict(read_torch_file(directory / "optimizer.pt"))
        restore_rng_state(record["torch_rng_state"])
    state.step = record["step"]
