"""A user's error comes out of a task as itself, and nothing of it is left behind."""

import subprocess
import sys
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayTaskError

from mama_ray.config import ConfigError
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.results import result_of

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.ray


@ray.remote(num_cpus=0.1, num_returns=2)
def _table_and_count(number: int) -> tuple[list[int], int]:
    if number < 0:
        raise UserError("number", got=number, wanted=">= 0", remedy="give another")
    return list(range(number)), number


@ray.remote(num_cpus=0.1)
def _fail(kind: str) -> None:
    if kind == "config":
        raise ConfigError("margin", got=9, wanted="<= 1")
    if kind == "cause":
        raise RuntimeError("while reading") from UserError("shard is bad", got="x", remedy="make it again")
    raise ZeroDivisionError("nobody foresaw it")


@ray.remote(num_cpus=0.1)
def _ask_another(kind: str) -> None:
    ray.get(_fail.remote(kind))


def test_a_tasks_result_is_returned_and_the_others_stay_in_the_store(ray_cluster):
    table, count = _table_and_count.remote(3)
    assert result_of(count, table) == 3
    assert ray.get(table) == [0, 1, 2]


def test_a_users_error_is_what_the_task_raised(ray_cluster):
    table, count = _table_and_count.remote(-1)
    with pytest.raises(UserError) as caught:
        result_of(count, table)
    assert type(caught.value) is UserError
    assert str(caught.value) == "number: got -1, wanted >= 0; give another"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("task", "kind", "told"),
    [
        (_fail, "config", "margin: got 9, wanted <= 1"),
        (_fail, "cause", "shard is bad: got x, make it again"),
        (_ask_another, "config", "margin: got 9, wanted <= 1"),
    ],
)
def test_it_is_found_behind_other_errors_and_other_tasks(ray_cluster, task, kind, told):
    with pytest.raises(UserError) as caught:
        result_of(task.remote(kind))
    assert str(caught.value).replace(";", ",") == told
    assert not isinstance(caught.value, RayTaskError)


def test_an_error_that_nobody_foresaw_keeps_its_remote_traceback(ray_cluster):
    with pytest.raises(RayTaskError, match="in _fail"):
        result_of(_fail.remote("other"))


@pytest.mark.slow
@pytest.mark.promise
def test_the_other_results_of_a_failed_task_are_not_logged_as_unhandled():
    program = """
import gc, ray, time
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.results import result_of

@ray.remote(num_cpus=0.1, num_returns=2)
def two():
    raise UserError("bad input")

def wait_for(*references):
    try:
        result_of(*references)
    except UserError as error:
        print(error)

ray.init(num_cpus=1, include_dashboard=False)
table, count = two.remote()
wait_for(count, *([table] if BESIDE else []))
del table, count
gc.collect()
time.sleep(6)  # Ray looks for errors that nobody has got five seconds after they came
ray.shutdown()
"""
    for beside, is_logged in ((True, False), (False, True)):
        command = [sys.executable, "-c", program.replace("BESIDE", str(beside))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
        assert done.stdout.splitlines()[-1] == "bad input", done.stderr[-2000:]
        assert ("Unhandled error" in done.stderr + done.stdout) == is_logged, done.stderr[-2000:]
