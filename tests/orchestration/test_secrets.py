"""No output of a job holds a secret: not what it prints, nor its folder and storage, nor what Ray keeps of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import yaml

from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video
from tests.orchestration.runs.training_runs import ROOT, SETTINGS, write_shards

NUM_VIDEOS = 8
LETTERS = "wJalr/UtnFEMI+K7MDENG/bPxRfiCY"


def planted(number: int) -> str:
    """Return a secret as AWS makes them, of letters that nothing else has."""
    return f"{LETTERS}9{number:02d}/Zq{number:02d}+x"


# Of the environment: under these names, or inside a URI.
ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": planted(1),
    "AWS_SESSION_TOKEN": planted(2),
    "HF_TOKEN": f"hf_{'AbCdEfGhIj' * 3}03",
    "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234504",
    "MLFLOW_TRACKING_URI": f"http://me:{planted(5).replace('/', '%2F')}@127.0.0.1:9",
    "MLFLOW_TRACKING_PASSWORD": planted(6),
    "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=a;AccountKey={planted(7)}==;EndpointSuffix=core.windows.net",
    "AZURE_STORAGE_KEY": planted(8),
    "HTTPS_PROXY": f"http://me:{planted(9)}@127.0.0.1:9",
    "PLANTED": planted(10),
}
NEEDLES = [*(planted(number)[len(LETTERS) :] for number in range(1, 30)), LETTERS, "AbCdEfGhIjAb", "89abcdef01234504"]


@dataclass
class Machine:
    """Where the jobs run: a bucket, a folder of files, a folder of Ray's and the environment that leads to them."""

    bucket: Place
    folder: Path
    ray: Path
    environment: dict[str, str]

    def start(self, program: str, *arguments: str, timeout_s: float = 400, **environment: str):
        """Run a program of jobs/, or a module, to its end; keeps what it prints in the folder."""
        call = [str(ROOT / f"jobs/{program}.py")] if (ROOT / f"jobs/{program}.py").exists() else ["-m", program]
        done = subprocess.run(
            [sys.executable, *call, *arguments], cwd=ROOT, env=self.environment | environment, capture_output=True,
            text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        number = len(list(self.folder.glob("printed-*")))
        (self.folder / f"printed-{number}-{program}.txt").write_text(done.stdout + done.stderr)
        return done

    def write(self, name: str, **values) -> str:
        """Write a config file, which may hold secrets, beside the folder that is searched."""
        path = self.folder.parent / name
        path.write_text(yaml.safe_dump(values))
        return str(path)

    def leaks(self) -> list[str]:
        """Return the lines of all that was written which hold a planted secret, with their file."""
        pafs.copy_files(self.bucket.path, str(self.folder / "bucket"), source_filesystem=self.bucket.filesystem)
        found = []
        for path in [*self.folder.rglob("*"), *self.ray.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found += [f"{path}: {needle}" for needle in NEEDLES if needle.encode() in content]
        return found


@pytest.fixture
def machine(s3_server, s3_bucket, tmp_path):
    ray = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))  # sockets lie below it, and their paths must be short
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | s3_server | ENVIRONMENT
    environment |= {"RAY_TMPDIR": str(ray), "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    environment |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
    (tmp_path / "searched").mkdir()
    yield Machine(Place.of(f"s3://{s3_bucket}"), tmp_path / "searched", ray, environment)
    shutil.rmtree(ray, ignore_errors=True)


REFUSED = {
    "a key in the URI of videos": ("prepare", {"videos": f"s3://key:{planted(11)}@bucket/videos"}, {}),
    "a signature in the URI of a storage": ("train", {"storage": f"https://h/x?sig={planted(12)}"}, {}),
    "Amazon's signature": ("caption", {"output": f"https://h/x?X-Amz-Signature={planted(13)}&X-Amz-Date=1"}, {}),
    "an account's key": ("evaluate", {"checkpoint": f"abfs://c/x?account_key={planted(14)}"}, {}),
    "a fragment": ("narrator", {"storage": f"s3://bucket/x#token={planted(15)}"}, {}),
    "a secret under a name of no field": ("train", {"secret_key": planted(16)}, {}),
    "a secret in the place of a group": ("train", {"model": f"api_key={planted(17)}"}, {}),
    "a mapping in the place of a text": ("train", {"storage": {"secret_access_key": planted(18)}}, {}),
    "a database that has no driver": ("tune", {"study": f"postgresql://me:{planted(19)}@127.0.0.1:9/studies"}, {}),
    "an endpoint with a password": (
        "prepare", {"videos": "s3://b/v"}, {"AWS_ENDPOINT_URL": f"http://me:{planted(20)}@127.0.0.1:9"},
    ),
}  # fmt: skip


def given(program: str, machine: Machine) -> dict:
    """Return what a job needs besides."""
    places = {"prepare": {"annotations": f"{machine.bucket}/a.jsonl", "output": f"{machine.bucket}/refused"}}
    places["train"] = {"shards": f"{machine.bucket}/shards", "storage": f"{machine.bucket}/runs"}
    places["caption"] = {"shards": f"{machine.bucket}/shards"}
    places["evaluate"] = {"benchmark": "embedded"}
    places["narrator"] = {"shards": f"{machine.bucket}/shards"}
    places["tune"] = {"storage": str(machine.folder / "sweeps"), "run": "sweep"}
    return places[program]


@pytest.mark.slow
@pytest.mark.promise
def test_what_is_refused_is_refused_without_its_secret(machine):
    for number, (what, (program, values, environment)) in enumerate(REFUSED.items()):
        config = machine.write(f"{number}.yaml", **given(program, machine) | values)
        done = machine.start(program, config, **environment)
        last = done.stderr.splitlines()[-1]
        assert done.returncode in (1, 2) and last.startswith("error: "), (what, done.stderr)
        assert ("***" in last) == (what != "a secret under a name of no field"), (what, last)
    for words in (
        [f"s3://key:{planted(21)}@bucket/job.yaml"],
        ["--storage", f"s3://key:{planted(22)}@bucket/runs"],
        [f"--storage=s3://key:{planted(23)}@bucket/runs"],
    ):
        done = machine.start("train", *words)
        assert done.returncode == 2 and "***" in done.stderr and "Traceback" not in done.stderr, done.stderr
    done = machine.start("train", machine.write("help.yaml", storage=f"s3://key:{planted(24)}@b/x"), "--help")
    assert done.returncode == 0 and "***" in done.stdout
    assert machine.leaks() == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.promise
def test_what_jobs_leave_behind_holds_no_secret(machine, s3_server, tmp_path):
    lines = [{"video": f"v{number}.mp4", "caption": f"text {number}"} for number in range(NUM_VIDEOS)]
    for number in range(NUM_VIDEOS):
        video = make_video(num_frames=4 + number, width=48, height=48, fps=4)
        (machine.bucket / f"videos/v{number}.mp4").write_whole(video)
    (machine.bucket / "annotations.jsonl").write_whole("".join(json.dumps(line) + "\n" for line in lines))
    shards = write_shards(tmp_path / "shards")
    pafs.copy_files(str(shards), f"{machine.bucket.path}/shards", destination_filesystem=machine.bucket.filesystem)
    uri = str(machine.bucket)
    places = {"videos": f"{uri}/videos", "annotations": f"{uri}/annotations.jsonl", "output": f"{uri}/prepared"}
    done = machine.start("prepare", machine.write("prepare.yaml", **places))
    assert done.returncode == 0, done.stderr[-3000:]

    places = {"shards": f"{uri}/shards", "storage": f"{uri}/runs", "run": "big", "trackers": ["mlflow"]}
    train = machine.write("train.yaml", **SETTINGS | {"num_epochs": 0.5, "num_workers": 1} | places)
    done = machine.start("train", train)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mlflow gets no more metrics" in done.stdout + done.stderr

    done = machine.start("tests.orchestration.leaky")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    for words in ("printed https://***@host/x", "logged https://***@host/x", "compiled code says https://***@host/x"):
        assert words in done.stdout + done.stderr
    assert "Traceback" in done.stderr and "?sig=***" in done.stderr

    headers = {"Content-Type": "text/plain"}  # from now on the server lets in nobody whom it does not know
    url = f"{s3_server['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    urllib.request.urlopen(urllib.request.Request(url, data=b"0", method="POST", headers=headers), timeout=30).close()
    done = machine.start("train", train, AWS_SECRET_ACCESS_KEY=planted(25))
    assert done.returncode == 1 and "no permission" in done.stderr.splitlines()[-1], done.stderr
    urllib.request.urlopen(
        urllib.request.Request(url, data=b"1000000", method="POST", headers=headers), timeout=30
    ).close()

    assert len(list(machine.ray.rglob("worker-*.out"))) > 3  # Ray's sessions of these jobs
    assert machine.leaks() == []
