"""What only a user can put right ends a group of workers at its first try; a crash does not."""

import time
from pathlib import Path

import pytest
import ray.train

from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.orchestration.runs.worker_group import EndAtUserError, run_workers
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.storage.places import Place


def test_a_user_error_among_the_failures_is_raised_and_a_crash_is_left_to_ray():
    callback = EndAtUserError()
    callback.after_exception(None, {0: RuntimeError("a peer has gone")})
    with pytest.raises(ray.train.ControllerError) as ended:
        callback.after_exception(None, {0: RuntimeError("a peer has gone"), 1: UserError("loss", got="nan")})
    assert str(ended.value.controller_failure) == "loss: got nan"


def fail(loop_config: dict) -> None:
    """Rank 0 crashes at its first try and meets a user's error at its second; rank 1 waits, as in a collective."""
    with open(loop_config["tries"], "a") as tries:
        tries.write(f"{ray.train.get_context().get_world_rank()}")
    if ray.train.get_context().get_world_rank() == 1:
        time.sleep(300)
    if Path(loop_config["tries"]).read_text().count("0") == 1:
        raise RuntimeError("a crash")
    raise UserError("train/loss at step 3", got="nan", remedy="lower optim.lr")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.promise
def test_a_crash_is_tried_again_and_a_user_error_is_not(ray_cluster, tmp_path, capfd):
    job = with_overrides(TrainJob(), {"num_workers": 2, "cpus_per_worker": 0.5, "max_failures": -1})
    with pytest.raises(UserError, match=r"^train/loss at step 3: got nan; lower optim.lr$"):
        run_workers(fail, {"tries": str(tmp_path / "tries")}, job, Place.of(tmp_path))
    assert sorted((tmp_path / "tries").read_text()) == list("0011")
    said = capfd.readouterr()
    assert "UserError" not in said.out + said.err
