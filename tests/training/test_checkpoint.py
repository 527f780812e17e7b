"""What is in a checkpoint: all that a run needs to go on bit for bit, and nothing that runs code."""

from pathlib import Path

import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.objectives.settings import ContrastiveConfig
from mama_ray.training.checkpoint import load_state
from mama_ray.training.loop import train
from mama_ray.training.manifest import (
    step_directory,
)
from tests.training.toy_runs import BATCH, NUM_STEPS, batches, meta_stream, new_state, save_checkpoint


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path, ema_decay):
    whole = new_state(ema_decay=ema_decay)
    records = []
    train(whole, batches(0, NUM_STEPS), meta_stream(0), report=records.append)
    first = new_state(ema_decay=ema_decay)
    train(first, batches(0, 5), meta_stream(0), report=records.append)
    directory = save_checkpoint(first, tmp_path)
    second = new_state(ema_decay=ema_decay)
    load_state(second, directory)
    assert second.step == 5 and second.samples_seen == 5 * BATCH
    resumed = []
    train(second, batches(5, NUM_STEPS), meta_stream(3), report=resumed.append)
    for ours, theirs in ((second.model, whole.model), (second.weighting, whole.weighting)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    for name, value in second.evaluated_model.state_dict().items():
        assert torch.equal(value, whole.evaluated_model.state_dict()[name]), name
    assert [record.step for record in resumed] == list(range(5, NUM_STEPS))
    assert torch.equal(resumed[-1].losses, records[NUM_STEPS - 1].losses)


def test_bias_of_a_sigmoid_loss_is_learned_and_goes_on_where_it_was(tmp_path):
    def state():
        return new_state(objective=ContrastiveConfig(loss="sigmoid", logit_bias=-2.0))

    whole, records = state(), []
    train(whole, batches(0, NUM_STEPS), meta_stream(0), report=records.append)
    assert records[-1].scalars["train/logit_bias"] == whole.feature_model.logit_bias != -2.0
    first = state()
    train(first, batches(0, 5), meta_stream(0), report=records.append)
    directory = save_checkpoint(first, tmp_path)
    second = state()
    load_state(second, directory)
    assert second.feature_model.logit_bias == first.feature_model.logit_bias
    train(second, batches(5, NUM_STEPS), meta_stream(3), report=records.append)
    for name, value in second.feature_model.state_dict().items():
        assert torch.equal(value, whole.feature_model.state_dict()[name]), name
    (directory / "objective.safetensors").unlink()
    with pytest.raises(UserError, match=r"objective\.safetensors"):
        load_state(state(), directory)


def test_resuming_with_another_batch_size_is_refused(tmp_path):
    state = new_state()
    directory = save_checkpoint(state, tmp_path)
    other = new_state()
    other.global_batch_size = 16
    with pytest.raises(UserError, match="global_batch_size"):
        load_state(other, directory)


def test_a_checkpoint_that_carries_code_is_not_loaded(run):
    """The optimiser's file is read with weights_only: a pickled object in its place is refused, not run."""

    class Trap:
        def __reduce__(self):
            return (Path(run / "sprung").touch, ())

    directory = run / "checkpoints" / step_directory(3)
    torch.save({"state": Trap(), "param_groups": []}, directory / "optimizer.pt")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        load_state(new_state(), directory)
    assert not (run / "sprung").exists()
