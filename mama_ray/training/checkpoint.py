"""Checkpoints: what is in one, when it counts, and how it is found.

A checkpoint is a folder `checkpoints/step_XXXXXXXX/` whose `manifest.json`, written last, lists every file with its
size and SHA-256. Without a valid manifest it does not exist. Nothing in it can run code when loaded: safetensors, JSON,
YAML, and the optimiser's tensors through `torch.load(weights_only=True)`.
"""

import base64
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from pydantic import BaseModel, Field
from safetensors.torch import save_file
from torch import Tensor

from mama_ray.errors import UserError
from mama_ray.models.adapters import adapter_state, exported_state, load_exported_state
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.folder import HEAD_WEIGHTS
from mama_ray.models.host_copy import Buffers, copy_to_host
from mama_ray.models.weight_files import WEIGHTS_NAME, read_json, read_safetensors, read_torch_file
from mama_ray.storage.small_files import check_form
from mama_ray.training.optim import schedules_agree
from mama_ray.training.settings import OptimConfig
from mama_ray.training.state import TrainState

logger = logging.getLogger(__name__)
_DIALS, _DIALS_OPTIMIZER = "dials.safetensors", "dials_optimizer.pt"
# Where there is a moving average, model and head are the average, as whoever loads the folder wants what was evaluated;
# these are the weights that training goes on with.
_TRAINED, _TRAINED_HEAD = "trained.safetensors", "trained_head.safetensors"


@dataclass(frozen=True)
class CapturedOptimizer:
    """An optimiser's state in host memory."""

    state: dict

    def state_dict(self) -> dict:
        """Return what the optimiser's own `state_dict` gave."""
        return self.state


@dataclass(frozen=True)
class CapturedState:
    """All of a run's state but the model, in host memory: training may go on while it is written.

    Attributes:
        weights: tensors by file name (safetensors).
        optimizers: by file name.
        record: train_state.json.
    """

    weights: dict[str, dict[str, Tensor]]
    optimizers: dict[str, CapturedOptimizer]
    record: dict


def capture_state(
    state: TrainState, *, selection: dict | None, extra: dict | None = None, buffers: Buffers | None = None
) -> CapturedState:
    """Copy everything a run needs to go on, except `state.evaluated_model` and its head.

    selection: {"metric": name, "value": number} on the validation split, or None.
    buffers: of the copy before, which is no longer needed.
    """
    weights, optimizers = {}, {"optimizer.pt": state.optimizer}
    if state.weight_optimizer is not None:
        weights["weight_net.safetensors"] = state.weighting.state_dict()
        optimizers["weight_optimizer.pt"] = state.weight_optimizer
    if (dials := state.weighted_step.dials) is not None:
        weights[_DIALS] = dials.module.state_dict()
        optimizers[_DIALS_OPTIMIZER] = dials.optimizer
    weights["objective.safetensors"] = state.feature_model.own_state()
    weights["adapters.safetensors"] = adapter_state(state.model)
    if state.ema is not None:
        weights[_TRAINED] = exported_state(state.model)
        weights["ema_adapters.safetensors"] = adapter_state(state.ema.module)
    if state.head_ema is not None and state.head is not None:
        weights[_TRAINED_HEAD] = state.head.state_dict()
    weights = {name: tensors for name, tensors in weights.items() if tensors}
    average = state.weighted_step.meta_average
    if average is not None:
        weights["meta_gradient.safetensors"] = average.state_dict()
    if state.weighted_step.average_loss is not None:
        weights["average_loss.safetensors"] = state.weighted_step.average_loss.state_dict()
    record = {
        "step": state.step,
        "samples_seen": state.samples_seen,
        "num_steps": state.num_steps,
        "global_batch_size": state.global_batch_size,
        "new_weights": list(state.model.new_weights),
        "ema_num_averaged": int(state.ema.n_averaged) if state.ema is not None else 0,
        **({} if average is None else {"meta_num_averaged": average.num_averaged}),
        "torch_rng_state": encode_rng_state(),
        "selection": selection,
        **(extra or {}),
    }
    states = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    copied = copy_to_host({"weights": weights, "optimizers": states}, buffers)
    captured = {name: CapturedOptimizer(content) for name, content in copied["optimizers"].items()}
    return CapturedState(copied["weights"], captured, record)


def write_state(captured: CapturedState, directory: Path) -> None:
    """Write what was captured; `directory` exists."""
    for name, tensors in captured.weights.items():
        save_file(tensors, directory / name)
    for name, optimizer in captured.optimizers.items():
        write_optimizer(optimizer, directory / name)
    (directory / "train_state.json").write_text(json.dumps(captured.record, indent=1))


def write_optimizer(optimizer: CapturedOptimizer, path: Path) -> None:
    """Write an optimiser's state.

    Through a file of ours: by itself torch.save tells a full disk by its own bookkeeping ("unexpected pos"), and what
    the disk said is lost.
    """
    with path.open("wb") as file:
        torch.save(optimizer.state_dict(), file)


def save_state(state: TrainState, directory: Path, *, selection: dict | None, extra: dict | None = None) -> None:
    """Capture a run's state and write it at once."""
    write_state(capture_state(state, selection=selection, extra=extra), directory)


def load_state(state: TrainState, directory: Path) -> dict:
    """Fill a freshly built state from a verified checkpoint folder; returns train_state.json.

    Raises UserError where the run's shape differs from the checkpoint's, since the data order would not go on.
    """
    record = read_train_state(directory)
    check_data_cursor(record, state)
    with state_errors(directory):
        _load_weights(state, directory)
        if state.feature_model.own_state():
            state.feature_model.load_own_state(read_safetensors(directory / "objective.safetensors"))
        state.optimizer.load_state_dict(read_torch_file(directory / "optimizer.pt"))
        if state.weight_optimizer is not None:
            state.weighting.load_state_dict(read_safetensors(directory / "weight_net.safetensors"))
            state.weight_optimizer.load_state_dict(read_torch_file(directory / "weight_optimizer.pt"))
        if (dials := state.weighted_step.dials) is not None:
            dials.module.load_state_dict(read_safetensors(directory / _DIALS))
            dials.optimizer.load_state_dict(read_torch_file(directory / _DIALS_OPTIMIZER))
        for average in (state.ema, state.head_ema):
            if average is not None:
                average.n_averaged.fill_(record["ema_num_averaged"])
        if state.weighted_step.meta_average is not None:
            sums = read_safetensors(directory / "meta_gradient.safetensors")
            state.weighted_step.meta_average.load_state_dict(sums, record["meta_num_averaged"])
        if state.weighted_step.average_loss is not None:
            state.weighted_step.average_loss.load_state_dict(read_safetensors(directory / "average_loss.safetensors"))
        restore_rng_state(record["torch_rng_state"])
    state.step = record["step"]
    return record


def _load_weights(state: TrainState, directory: Path) -> None:
    """Fill model and head, and their averages. Checkpoints of earlier versions have the averages in files of their own
    beside those that training goes on with."""
    trained, averaged, trained_head, averaged_head = (
        (_TRAINED, WEIGHTS_NAME, _TRAINED_HEAD, HEAD_WEIGHTS)
        if (directory / _TRAINED).is_file()
        else (WEIGHTS_NAME, "ema.safetensors", HEAD_WEIGHTS, "head_ema.safetensors")
    )
    _load_model(state.model, directory, trained, "adapters.safetensors")
    if state.ema is not None:
        _load_model(state.ema.module, directory, averaged, "ema_adapters.safetensors")
    if state.head is not None:
        state.head.load_state_dict(read_safetensors(directory / trained_head))
    if state.head_ema is not None:
        state.head_ema.module.load_state_dict(read_safetensors(directory / averaged_head))


def _load_model(model: DualEncoder, directory: Path, weights: str, adapters: str) -> None:
    """Fill a model from its weights as they were exported, and from those of its adapters where it has any."""
    kept = read_safetensors(directory / adapters) if adapter_state(model) else {}
    load_exported_state(model, read_safetensors(directory / weights), kept)


class _TrainState(BaseModel):
    """The form of train_state.json, as far as it is read again."""

    step: int = Field(ge=0, lt=1 << 63)
    num_steps: int = Field(ge=0, lt=1 << 63)
    global_batch_size: int = Field(gt=0, lt=1 << 31)
    ema_num_averaged: int = Field(0, ge=0, lt=1 << 63)
    meta_num_averaged: int = Field(0, ge=0, lt=1 << 63)
    torch_rng_state: str = Field(max_length=1 << 16)
    new_weights: list[str] = Field([], max_length=1 << 16)


def read_train_state(directory: Path) -> dict:
    """Return train_state.json of a local checkpoint; UserError where it is missing or of another form."""
    path = directory / "train_state.json"
    record = read_json(path)
    check_form(_TrainState, record, path)
    return record


@contextmanager
def state_errors(directory: Path) -> Iterator[None]:
    """Turn what torch says of a state that is not that of this model and its optimisers into one UserError."""
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError("the checkpoint is not of this model and run", got=f"{directory} ({reason})") from error


@runtime_checkable
class _Position(Protocol):
    """What decides which clips the next step takes, and at which learning rate."""

    num_steps: int
    global_batch_size: int
    optim: OptimConfig


def check_data_cursor(record: Mapping, state: _Position) -> None:
    """Raise UserError where a run's sizes differ from those of its checkpoint's record.

    It may have more or fewer steps where those that were done would have been the same.
    """
    is_same_schedule = schedules_agree(record["step"], record["num_steps"], state.num_steps, state.optim)
    ours = {"global_batch_size": state.global_batch_size, "num_steps": state.num_steps}
    for key, value in ours.items():
        if record[key] != value and not (key == "num_steps" and is_same_schedule):
            raise UserError(
                f"cannot resume: {key} changed",
                got=value,
                wanted=record[key],
                remedy="use the old value or another run name",
            )


def encode_rng_state() -> str:
    """Return torch's random state on the CPU as text."""
    return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()


def restore_rng_state(text: str) -> None:
    """Set torch's random state on the CPU to an encoded one."""
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8))
