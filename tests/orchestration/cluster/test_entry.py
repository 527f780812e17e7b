"""How a job ends: its exit status, its last line, and what is said about an error from the other side of Ray."""

import importlib.metadata
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.entry import find_user_error

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = '''
"""Do a thing.

    python jobs/thing.py [config.yaml] --number N
"""
import logging
import signal
import sys
import time
from mama_ray.config import Config, load_yaml
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.entry import run_job
from pydantic import Field

class Job(Config):
    """A thing."""
    number: int = Field(1, ge=0)
    """How many."""

def run(job):
    print("working", flush=True)
    logging.getLogger("mama_ray.thing").info("at work")
    BODY
    return "did 3 things:\\n runs/thing"

if __name__ == "__main__":
    # A shell's background job, which the tests may run in, hands on that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_job(Job, run, description=__doc__)
'''


@pytest.fixture
def start(tmp_path):
    """Start a job whose `run` does the given lines, with the given arguments."""

    def start(body: str, *arguments: str) -> subprocess.Popen:
        program = tmp_path / "thing.py"
        program.write_text(PROGRAM.replace("BODY", body))
        return subprocess.Popen(
            [sys.executable, program, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


@pytest.fixture
def finish(start):
    """Run a job to its end; returns exit status, lines of stdout and lines of stderr."""

    def finish(body: str, *arguments: str) -> tuple[int, list[str], list[str]]:
        process = start(body, *arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out.splitlines(), err.splitlines()

    return finish


def test_done_job_exits_0_and_its_last_line_names_the_result(finish):
    status, out, err = finish("pass")
    assert (status, out) == (0, ["working", "did 3 things: runs/thing"])
    assert err[-1].endswith("at work")


def test_user_error_exits_1_and_is_the_only_thing_said(finish):
    status, _, err = finish('raise UserError("shards", got="0 files", wanted="some", remedy="run prepare")')
    assert status == 1
    assert err[-1] == "error: shards: got 0 files, wanted some; run prepare"
    assert not any("Traceback" in line for line in err)


def test_user_error_that_caused_another_error_is_what_is_told(finish):
    status, _, err = finish('raise RuntimeError("in worker 3") from UserError("no space", remedy="free some")')
    assert (status, err[-1]) == (1, "error: no space; free some")


def test_unforeseen_error_exits_1_with_its_traceback_above_one_last_line(finish):
    status, _, err = finish('{}["key of\\n two lines"]')
    assert status == 1
    assert err[-1].startswith("error: KeyError: 'key of")
    assert any("Traceback" in line for line in err)
    assert any("thing.py" in line for line in err)


def test_a_full_disk_that_no_job_was_looking_out_for_is_one_line_with_its_place(finish):
    body = 'import os, tempfile\n    raise RuntimeError("writing") from OSError(28, os.strerror(28), "/data/out/file")'
    status, _, err = finish(body)
    assert status == 1
    assert err[-1].startswith("error: no space left on the storage: got "), err
    assert "No space left on device: '/data/out/file'; free some room there" in err[-1], err
    assert not any("Traceback" in line for line in err)


def test_a_lack_of_memory_is_one_line_that_says_what_to_take_less_of(finish):
    status, _, err = finish("import numpy\n    numpy.zeros(1 << 50)")
    assert status == 1
    assert err[-1].startswith("error: out of memory: got MemoryError: Unable to allocate 8.00 PiB"), err
    assert "smaller batches and fewer workers" in err[-1], err


def test_user_error_that_was_handled_before_is_not_blamed_for_a_later_one(finish):
    body = 'try: raise UserError("old")\n    except UserError: raise ZeroDivisionError("new")'
    status, _, err = finish(body)
    assert (status, err[-1]) == (1, "error: ZeroDivisionError: new")


def test_missing_dependency_names_the_way_to_install_it(finish):
    status, _, err = finish("import no_such_package")
    assert (status, err[-1]) == (
        1,
        "error: ModuleNotFoundError: No module named 'no_such_package'; `make setup` installs what is missing",
    )


@pytest.mark.parametrize("arguments", [["--number", "-1"], ["--numbr", "3"], ["absent.yaml"], ["--number"], ["-x"]])
def test_bad_usage_exits_2_with_one_line_before_any_work(finish, arguments):
    status, out, err = finish("pass", *arguments)
    assert (status, out, len(err)) == (2, [], 1)
    assert err[0].startswith("error: ")


def test_config_error_inside_the_job_exits_2(finish):
    status, _, err = finish('load_yaml("a: 1\\na: 2", source="benchmark.yaml")')
    assert status == 2
    assert err[-1].startswith("error: benchmark.yaml line 2")


def test_help_exits_0_without_any_work(finish):
    status, out, err = finish("raise RuntimeError", "--help")
    assert (status, err) == (0, [])
    text = "\n".join(out)
    assert "[config.yaml]" in text
    assert "Do a thing." in text
    assert "--number INT" in text
    assert "How many. (default: 1)" in text


def test_leaving_by_sys_exit_is_never_taken_for_success(finish):
    status, _, err = finish("sys.exit(0)")
    assert (status, err[-1]) == (1, "error: the job left by sys.exit(0) before it was done")


# It takes the handlers away as ray.init() and Ray Train do, and loses the exit code as Ray's compiled code does.
TAKE_OVER = """
    import signal
    def leave(*_): sys.exit(0)
    signal.signal(signal.SIGTERM, leave); signal.signal(signal.SIGINT, leave)
    try: print("ready", flush=True); time.sleep(60)
    except SystemExit: raise SystemExit(1)
"""


@pytest.mark.parametrize("body", ['print("ready", flush=True); time.sleep(60)', TAKE_OVER], ids=["own", "taken over"])
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_job_exits_as_shells_count_it_and_says_that_it_can_resume(start, body, sent, status):
    process = start(body)
    while process.stdout.readline() != "ready\n":
        assert process.poll() is None
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "started again" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.ray
def test_user_error_is_found_through_every_wrapper_of_ray(ray_cluster):
    ray = ray_cluster

    def fail(*_):
        raise UserError("shard is bad", got="x", remedy="make it again")

    def fail_wrapped():
        try:
            fail()
        except UserError as error:
            raise RuntimeError("outer") from error

    @ray.remote
    def nested():
        ray.get(ray.remote(fail).remote())

    def fail_by_another(*_):
        try:
            raise FileNotFoundError(2, "no such file")
        except OSError as error:
            raise UserError("shard is bad", got="x", remedy="make it again") from error

    def in_data():
        ray.data.range(1).map_batches(fail).materialize()

    def in_data_by_another():
        ray.data.range(1).map_batches(fail_by_another).materialize()

    def get(function):
        return lambda: ray.get(ray.remote(function).remote())

    for raising in (get(fail), get(fail_wrapped), lambda: ray.get(nested.remote()), in_data, in_data_by_another):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which class Ray takes is not ours to say
            raising()
        assert str(find_user_error(caught.value)) == "shard is bad: got x; make it again"


@pytest.mark.ray
def test_error_of_ray_that_is_no_users_is_left_to_its_traceback(ray_cluster):
    def fail():
        try:
            raise UserError("handled")
        except UserError:
            raise KeyError("mama_ray.errors.UserError: only quoted")  # noqa: B904 - the chain is the point

    with pytest.raises(KeyError) as caught:
        ray_cluster.get(ray_cluster.remote(fail).remote())
    assert find_user_error(caught.value) is None


def test_user_error_is_found_among_the_failures_of_train_workers():
    from ray.train import TrainingFailedError
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    failures = {0: RuntimeError("a peer has gone"), 1: UserError("clip is bad")}
    group = WorkerGroupError("two failed", failures)
    assert isinstance(group, TrainingFailedError)
    assert str(find_user_error(group)) == "clip is bad"
    assert str(find_user_error(ControllerError(group))) == "clip is bad"
    assert find_user_error(WorkerGroupError("one failed", {0: RuntimeError("x")})) is None


@pytest.mark.parametrize("job", sorted(path.name for path in (ROOT / "jobs").glob("*.py")))
def test_every_job_tells_its_version(job, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"jobs/{job}", "--version"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(str(ROOT / "jobs" / job), run_name="__main__")
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"mama_ray {importlib.metadata.version('mama-ray')}\n"


def test_a_version_is_told_before_anything_heavy_is_imported():
    heavy = "print({'torch', 'ray', 'av', 'transformers'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"import runpy, sys, atexit\natexit.register(lambda: {heavy})\n"
         "sys.argv = ['jobs/train.py', '--version']\nrunpy.run_path(sys.argv[0], run_name='__main__')"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[1:] == ["set()"], done.stderr


def test_no_way_out_of_a_job_tells_a_secret(finish):
    body = """import os, threading
    uri = "https://me:hunter/2@host/x"
    print("printed", uri, flush=True)
    os.write(2, ("compiled " + uri + "\\n").encode())
    logging.getLogger("other").warning("logged %s", uri)
    thread = threading.Thread(target=lambda: open(uri))
    thread.start(), thread.join()
    raise RuntimeError("ended by " + uri)"""
    status, out, err = finish(body)
    assert (status, err[-1]) == (1, "error: RuntimeError: ended by https://***@host/x")
    assert "printed https://***@host/x" in out and "compiled https://***@host/x" in err
    assert any("logged https://***@host/x" in line for line in err) and any("Traceback" in line for line in err)
    assert not any("hunter" in line for line in out + err if "uri = " not in line)


def test_the_result_and_a_config_in_the_place_of_the_file_tell_no_secret(finish):
    assert finish('return "https://me:hunter2@host/x"')[1][-1] == "https://***@host/x"
    status, out, err = finish("pass", "s3://me:hunter/2@bucket/job.yaml")
    assert (status, out, len(err)) == (2, [], 1) and "hunter" not in err[0]
    status, _, err = finish("pass", "--number", "s3://me:hunter/2@bucket/job.yaml")
    assert status == 2 and err == [
        "error: --number: credentials on the command line: got s3://***@bucket/job.yaml; put them in the environment, a"
        " database's URL in the config file"
    ]


@pytest.mark.parametrize(("arguments", "status"), [((), 0), (("--version",), 0), (("--number", "x"), 2)])
def test_the_status_is_told_where_the_last_line_cannot_be(arguments, status, tmp_path):
    program = tmp_path / "thing.py"
    program.write_text(PROGRAM.replace('print("working", flush=True)', "").replace("BODY", ""))
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, program, *arguments], cwd=ROOT, stdout=full, stderr=full, check=False)
    assert done.returncode == status
