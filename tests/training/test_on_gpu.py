"""A run on a GPU: a checkpoint goes on as if there had been none, there and on a CPU."""

import pytest
import torch

from mama_ray.training.checkpoint import load_state
from mama_ray.training.loop import train
from mama_ray.training.state import TrainState
from tests.training.test_padding_rows import PARAMETERS, filled_up, require_finite, step_of
from tests.training.toy_runs import NUM_STEPS, batches, meta_stream, new_state, save_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]
DEVICE = "cuda"


def on_device(state: TrainState, device: str) -> TrainState:
    """Move a fresh state; its optimisers have nothing yet."""
    state.model.to(device)
    state.weighting.to(device)
    return state


def run(state: TrainState, first: int, stop: int, device: str = DEVICE) -> None:
    metas = [batch.to(device) for batch in meta_stream((first + 1) // 2)]
    train(state, [batch.to(device) for batch in batches(first, stop)], metas, report=lambda record: None)


def difference(ours: TrainState, theirs: TrainState) -> float:
    pairs = zip(ours.model.state_dict().values(), theirs.model.state_dict().values(), strict=True)
    return max(float((one.cpu() - other.cpu()).abs().max()) for one, other in pairs)


@pytest.mark.parametrize("device", [DEVICE, "cpu"])
def test_a_run_resumed_on_this_or_the_other_device_ends_where_the_whole_run_does(tmp_path, device):
    whole = on_device(new_state(), DEVICE)
    run(whole, 0, NUM_STEPS)
    first = on_device(new_state(), DEVICE)
    run(first, 0, 5)
    second = on_device(new_state(), device)
    load_state(second, save_checkpoint(first, tmp_path))
    assert second.step == 5 and difference(second, first) == 0
    run(second, 5, NUM_STEPS, device)
    assert difference(second, whole) < 1e-6 < difference(first, whole)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("name", "is_asked"), PARAMETERS)
def test_padding_leaves_everything_finite_in_fused_kernels(name, is_asked, dropout):
    options = {"is_asked": is_asked, "prepare": filled_up, "device": DEVICE}
    require_finite(*step_of(name, dropout, **options, dtype=torch.float32))
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        require_finite(*step_of(name, dropout, **options, dtype=torch.float32))
