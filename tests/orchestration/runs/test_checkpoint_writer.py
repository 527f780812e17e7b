"""Training goes on while a checkpoint is written; nothing that goes wrong behind its back is lost."""

import copy
import logging

import pyarrow.fs as pafs
import pytest
import torch
from safetensors.torch import load_file, save_file

from mama_ray.errors import UserError
from mama_ray.models.host_copy import copy_to_host
from mama_ray.orchestration.runs.output import RunOutput
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place
from mama_ray.training.checkpoint import capture_state, load_state, write_state
from mama_ray.training.loop import train
from mama_ray.training.manifest import latest_valid_checkpoint, list_checkpoints
from tests.storage.blocking_storage import BlockingStorage
from tests.training.test_loop import NUM_STEPS, batches, meta_stream, new_state


@pytest.fixture
def storage():
    storage = BlockingStorage()
    yield storage
    storage.unblock()


@pytest.fixture
def run(tmp_path):
    return str(tmp_path / "run")


def new_output(storage: BlockingStorage, run: str, *, num_to_keep: int = 2) -> RunOutput:
    settings = {"first_step": 0, "num_steps": NUM_STEPS, "num_checkpoints_to_keep": num_to_keep, "show_bar": False}
    return RunOutput("run", Place(pafs.PyFileSystem(storage), run, run), **settings)


def save(output: RunOutput, state) -> None:
    """Save as the recorders do."""

    def capture():
        weights = copy_to_host(dict(state.evaluated_model.state_dict()))
        captured = capture_state(state, selection=None)

        def write(staged):
            save_file(weights, staged / "model.safetensors")
            write_state(captured, staged)

        return write

    output.checkpoints.save(state.step, capture, selection=None)


def steps_of(run: str) -> list[int]:
    return [ref.step for ref in list_checkpoints(Place.of(run))]


def test_training_goes_on_while_a_checkpoint_waits_and_the_checkpoint_holds_its_own_step(storage, run, tmp_path):
    state, output, then = new_state(ema_decay=0.9), new_output(storage, run), {}

    def report(record):
        output.metrics.write(record.step, {"train/loss": float(record.losses.mean())})
        if state.step == 3:
            then.update(
                copy.deepcopy({"trained": state.model.state_dict(), "model": state.evaluated_model.state_dict()})
            )
            storage.block()
            save(output, state)

    train(state, batches(0, NUM_STEPS), meta_stream(0), report=report)
    assert storage.is_waiting.wait(60)
    assert state.step == NUM_STEPS and steps_of(run) == []
    storage.unblock()
    output.close(has_failed=False)
    ref = latest_valid_checkpoint(Place.of(run))
    assert ref.step == 3
    folder = tmp_path / "run" / "checkpoints" / "step_00000003"
    assert not (folder / ".uploading").exists()
    for file, now in (("trained", state.model.state_dict()), ("model", state.evaluated_model.state_dict())):
        saved = load_file(folder / f"{file}.safetensors")
        assert all(torch.equal(saved[name], value) for name, value in then[file].items())
        assert not all(torch.equal(saved[name], value) for name, value in now.items())
    resumed, finished = new_state(ema_decay=0.9), state
    load_state(resumed, folder)
    train(resumed, batches(3, NUM_STEPS), meta_stream(2), report=lambda _: None)
    for ours, theirs in ((resumed.model, finished.model), (resumed.evaluated_model, finished.evaluated_model)):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_a_second_save_waits_for_the_one_before(storage, run):
    state, output, published = new_state(), new_output(storage, run), []
    storage.block()
    state.step = 1
    save(output, state)
    assert storage.is_waiting.wait(60)

    def capture():
        published.extend(steps_of(run))
        return lambda staged: (staged / "model.safetensors").write_bytes(b"weights")

    storage.unblock()
    output.checkpoints.save(2, capture, selection=None)
    assert published == [1]
    output.close(has_failed=False)
    assert steps_of(run) == [1, 2]


def test_a_checkpoints_metrics_are_in_the_storage_before_its_manifest(storage, run):
    state, output = new_state(), new_output(storage, run)
    for state.step in (1, 2):
        output.metrics.write(state.step, {"train/loss": 1.0})
        save(output, state)
    output.checkpoints.wait()
    names = [name for name in storage.written if name in ("metrics.jsonl", "manifest.json")]
    assert names == ["metrics.jsonl", "manifest.json"] * 2
    assert [record["step"] for record in read_metrics(Place.of(run))] == [1, 2]
    output.close(has_failed=False)


def test_an_error_behind_trainings_back_is_raised_at_the_next_save_and_once(storage, run):
    state, output = new_state(), new_output(storage, run)
    storage.refused, state.step = "optimizer.pt", 1
    save(output, state)
    with pytest.raises(UserError, match=r"refuses access: got .*optimizer\.pt"):
        save(output, state)
    storage.refused, state.step = None, 2
    save(output, state)
    output.close(has_failed=False)
    assert steps_of(run) == [2]  # what was cut off never was a checkpoint


def test_an_error_of_the_last_checkpoint_is_raised_at_the_end_of_the_run(storage, run):
    state, output = new_state(), new_output(storage, run)
    storage.refused, state.step = "manifest.json", 1
    save(output, state)
    with pytest.raises(UserError, match=r"refuses access: got .*manifest\.json"):
        output.close(has_failed=False)
    assert latest_valid_checkpoint(Place.of(run)) is None


def test_a_run_that_fails_still_publishes_its_last_checkpoint(storage, run):
    state, output = new_state(), new_output(storage, run)
    storage.block()
    state.step = 1
    save(output, state)
    assert storage.is_waiting.wait(60)
    storage.unblock()
    output.close(has_failed=True)
    assert steps_of(run) == [1]


def test_a_run_that_fails_keeps_its_own_error_and_logs_the_checkpoints(storage, run, caplog):
    state, output = new_state(), new_output(storage, run)
    storage.refused, state.step = "manifest.json", 1
    save(output, state)
    with caplog.at_level(logging.ERROR):
        output.close(has_failed=True)
    assert "no leave to write manifest.json" in caplog.text


def test_tied_tensors_stay_one_in_a_copy_and_others_share_nothing():
    tied, other = torch.arange(4.0), torch.arange(4.0)
    tree = {"a": tied, "b": tied, "rest": [other, (other[1:3], 5, None)], "empty": [torch.zeros(0), torch.ones(0, 2)]}
    copied = copy_to_host(tree)
    tied += 1
    other += 1
    assert copied["a"] is copied["b"] and copied["a"].tolist() == [0, 1, 2, 3]
    assert copied["rest"][1][0].tolist() == [1, 2] and copied["rest"][1][1:] == (5, None)
    assert [tuple(tensor.shape) for tensor in copied["empty"]] == [(0,), (0, 2)]


def test_buffers_are_used_again_and_follow_a_tree_that_changes():
    buffers: dict = {}
    first = copy_to_host({"a": torch.arange(3.0), "b": [torch.ones(2)]}, buffers)
    second = copy_to_host({"a": torch.arange(3.0) + 1, "b": [torch.ones(4)]}, buffers)
    assert second["a"] is first["a"] and second["a"].tolist() == [1, 2, 3]
    assert second["b"][0].tolist() == [1, 1, 1, 1]
