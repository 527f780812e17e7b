"""What a step of a narrator's training changes, how it changes it, and how it is saved and found again."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mama_ray.captioning.narrator.folder import Narrator, save_narrator
from mama_ray.captioning.narrator.loss import IGNORED
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

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class NarratorState:
    """A narrator in training.

    Attributes:
        loss: gives the summed loss of pictures and labels; DDP's wrapping of it inside a process group.
        autocast: what the forward pass runs under.
    """

    narrator: Narrator
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    optim: OptimConfig
    num_steps: int
    global_batch_size: int
    num_micro_batches: int
    autocast: Callable[[], AbstractContextManager]
    step: int = 0

    @property
    def samples_seen(self) -> int:
        """The data cursor: global batch t is rows [t * G, (t + 1) * G) of the epoch plan."""
        return self.step * self.global_batch_size


def train_step(state: NarratorState, pictures: Tensor, labels: Tensor) -> dict[str, Tensor | float]:
    """Take one step on this rank's part of the batch; labels of clips that could not be read are all IGNORED.

    The loss is the mean over the tokens of the global batch, whatever the number of ranks and micro-batches.
    """
    learning_rate = learning_rate_at(state.step, state.num_steps, state.optim)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    num_tokens = gather_plain((labels != IGNORED).sum()[None]).sum().clamp_min(1)
    scale = world_size() / num_tokens  # DDP takes the mean of the ranks' gradients
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


class _CapturedModel:
    """Stands for a model in its folder's writing, with the weights that it had when it was captured."""

    def __init__(self, model: "PreTrainedModel", weights: dict[str, Tensor]) -> None:
        self._model, self._weights = model, weights

    def save_pretrained(self, directory: str) -> None:
        """Write what the model's own `save_pretrained` would have written then."""
        self._model.save_pretrained(directory, state_dict=dict(self._weights))


@dataclass(frozen=True)
class CapturedNarrator:
    """A narrator and what its run needs to go on, in host memory: training may go on while it is written."""

    narrator: Narrator
    optimizer: CapturedOptimizer
    record: dict


def capture_state(state: NarratorState, *, validation: dict, buffers: Buffers | None = None) -> CapturedNarrator:
    """Copy everything that a step changes; `buffers` hold the copy before, which is no longer needed."""
    record = {
        "step": state.step,
        "samples_seen": state.samples_seen,
        "num_steps": state.num_steps,
        "global_batch_size": state.global_batch_size,
        "torch_rng_state": encode_rng_state(),
        "validation": validation,
    }
    model = state.narrator.model
    tree = {"model": dict(model.state_dict()), "optimizer": state.optimizer.state_dict()}
    copied = copy_to_host(tree, buffers)
    captured: Any = _CapturedModel(model, copied["model"])  # all of a model that is asked for in its folder's writing
    narrator = Narrator(captured, state.narrator.processor)
    return CapturedNarrator(narrator, CapturedOptimizer(copied["optimizer"]), record)


def write_state(captured: CapturedNarrator, directory: Path, narrator_input: NarratorInput) -> None:
    """Write a model folder and beside it what the run needs to go on; `directory` exists."""
    save_narrator(captured.narrator, directory, narrator_input)
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
