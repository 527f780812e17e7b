"""Checkpoints while training goes on: pinned memory holds the state of the moment, a thread writes it."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from benchmarks.gpu.rows import Row, absent, check, figure
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.steps import build_training, training_step
from mama_ray.models.host_copy import Buffers, copy_to_host
from mama_ray.models.pretrained import capture_pretrained, write_pretrained
from mama_ray.orchestration.runs.checkpoint_writer import CheckpointWriter, WriteFiles
from mama_ray.reporting.writers import MetricsWriter
from mama_ray.storage.places import Place
from mama_ray.training.checkpoint import capture_state, load_state, write_state
from mama_ray.training.manifest import latest_valid_checkpoint
from mama_ray.training.state import TrainState


def tensors_of(tree: object) -> list[Tensor]:
    """Return all tensors of nested dicts and lists, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [tensor for value in tree.values() for tensor in tensors_of(value)]
    if isinstance(tree, list | tuple):
        return [tensor for value in tree for tensor in tensors_of(value)]
    return []


def num_different(ours: list[Tensor], theirs: list[Tensor]) -> int:
    """Count the elements that are not the same."""
    assert len(ours) == len(theirs)
    return sum(int((one.cpu() != other.cpu()).sum()) for one, other in zip(ours, theirs, strict=True))


def state_dicts(state: TrainState) -> dict:
    """Return what a checkpoint must bring back."""
    assert state.weight_optimizer is not None
    return {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "weight net": state.weighting.state_dict(),
        "optimizer of the weight net": state.weight_optimizer.state_dict(),
    }


def checkpoint(setting: Setting, name: str) -> Iterator[Row]:
    """Save while the next steps change the state, then load, and compare bit for bit."""
    state = build_training(name, setting.device, kind="learned")
    step = training_step(state, min(setting.check_batch, 8), setting.device)
    step()
    yield from _host_copies(state, setting)
    buffers: Buffers = {}
    with tempfile.TemporaryDirectory(prefix="mama_ray-gpu-") as folder:
        metrics = MetricsWriter(Place.of(folder), tensorboard=False)
        writer = CheckpointWriter(Place.of(folder), metrics, num_checkpoints_to_keep=1)
        writer.save(state.step, lambda: _capture(state, buffers), selection=None)
        writer.wait()  # the first one also makes the buffers
        step()
        expected = [tensor.detach().clone() for tensor in tensors_of(state_dicts(state))]
        start, saved_at = time.perf_counter(), state.step
        writer.save(state.step, lambda: _capture(state, buffers), selection=None)
        yield figure("a save keeps the training thread", time.perf_counter() - start, "s", "from the second save on")
        for _ in range(3):
            step()
        writer.close(has_failed=False)
        yield figure("checkpoint published after", time.perf_counter() - start, "s", "beside three training steps")
        metrics.close()
        changed = num_different(tensors_of(state_dicts(state)), expected)
        found = latest_valid_checkpoint(Place.of(folder))
        assert found is not None and found.step == saved_at and changed > 0
        again = build_training(name, setting.device, kind="learned")
        load_state(again, Path(found.place.path))
        wrong = num_different(tensors_of(state_dicts(again)), expected)
        words = f"{changed} changed meanwhile"
        yield check("checkpoint written beside training: elements that differ", wrong, 0, words)


def _host_copies(state: TrainState, setting: Setting) -> Iterator[Row]:
    source, buffers = state_dicts(state), {}
    copies = tensors_of(copy_to_host(source, buffers))
    yield check("copy in host memory: elements that differ", num_different(copies, tensors_of(source)), 0)
    addresses = {tensor.data_ptr() for tensor in copies}
    again = tensors_of(copy_to_host(source, buffers))
    moved = sum(tensor.data_ptr() not in addresses for tensor in again)
    yield check("second copy: tensors not in the first one's memory", moved, 0)
    if not setting.is_gpu:
        yield absent("pinned memory", "copies from a CPU need none")
        return
    paged = sum(
        copy.numel() > 0 and original.is_cuda and not copy.is_pinned()
        for copy, original in zip(copies, tensors_of(source), strict=True)
    )
    yield check("copies that are not pinned", paged, 0)


def _capture(state: TrainState, buffers: Buffers) -> WriteFiles:
    model = capture_pretrained(state.evaluated_model, buffers)
    captured = capture_state(state, selection=None, buffers=buffers)

    def write(folder: Path) -> None:
        write_pretrained(model, folder)
        write_state(captured, folder)

    return write
