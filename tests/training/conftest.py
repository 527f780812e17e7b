"""A run of the toy encoder with three checkpoints."""

from pathlib import Path

import pytest

from tests.training.toy_runs import new_state, save_checkpoint


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with checkpoints of steps 1, 2 and 3, the second one best by validation."""
    state = new_state()
    for step, score in ((1, 10.0), (2, 30.0), (3, 20.0)):
        state.step = step
        save_checkpoint(state, tmp_path, selection=score)
    return tmp_path
