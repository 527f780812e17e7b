"""The image has what the jobs need, installed as `make setup` installs it; and no file of cluster/ holds a secret."""

import re
import shlex
import subprocess
import tomllib
from itertools import pairwise

import pytest
import yaml

from mama_ray.config import parse_config
from tests.cluster.cluster_files import CLUSTER, ROOT, read
from tests.test_layout import JOBS, config_class

FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
YAML_FILES = [path for path in FILES if path.suffix == ".yaml"]
_COMMAND = re.compile(r"python (jobs/(\w+)\.py)((?: +[^\s`#|&)]+)*)")
_SECRET = re.compile(
    r"AKIA[0-9A-Z]{12,}|-----BEGIN|hf_[A-Za-z0-9]{20,}|gh[ps]_[A-Za-z0-9]{20,}|[A-Za-z0-9+/]{40,}={0,2}"
)
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY", re.I)


def instructions() -> list[list[str]]:
    """Return the Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in read("Dockerfile").splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [line.split(maxsplit=1) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def install_options(text: str) -> dict[str, list[str]]:
    """Return the options of the set-up: those of every machine, and those of one without a GPU."""
    (without_gpu,) = re.findall(r'only="([^"]+)"', text)
    (command,) = re.findall(r"uv pip install (.*--constraints constraints\.txt)", text)
    own = {"--quiet", "--system", "--no-cache", "--python", "$(PY)", "$$torch", "$torch", "$$only", "$only"}
    return {"all": [word for word in command.split() if word not in own], "without GPU": without_gpu.split()}


def test_the_image_is_installed_by_the_command_of_make_setup():
    makefile = install_options((ROOT / "Makefile").read_text().replace("\\\n", " "))
    assert install_options(read("Dockerfile").replace("\\\n", " ")) == makefile
    assert makefile["without GPU"] == ["--excludes", "cpu-excludes.txt", "--constraints", "constraints-cpu.txt"]
    uv = r"'uv>=[\d.]+'"
    assert set(re.findall(uv, read("Dockerfile"))) == set(re.findall(uv, (ROOT / "Makefile").read_text()))


def test_every_file_that_the_image_copies_is_there_and_none_is_kept_from_it():
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in ignored  # all that is not named stays out
    copied = [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source


def test_the_image_has_a_pinned_base_and_a_user_who_is_not_root():
    words = instructions()
    assert [rest for word, rest in words if word == "FROM"] == ["python:3.11.14-bookworm"]
    assert [rest for word, rest in words if word == "USER"] == ["ray"]
    homes = [rest for word, rest in words if word == "ENV" and rest.startswith("HOME=")]
    assert [home.rsplit("/", 1)[1] for home in homes] == ["ray"]
    assert [word for word, _ in words if word in ("USER", "CMD")] == ["USER", "CMD"]


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_the_images_extra_is_one_of_the_packages(extra):
    assert f'\n{extra} = ["vllm' in (ROOT / "pyproject.toml").read_text()
    assert f"--build-arg EXTRA={extra}" in read("Dockerfile")


@pytest.mark.parametrize(("more", "wanted"), [("", ["gpu"]), ("serve mlflow", ["gpu", "serve", "mlflow"])])
def test_the_image_has_as_many_extras_as_are_asked_for(more, wanted):
    (command,) = [rest for word, rest in instructions() if word == "RUN" and "--requirements" in rest]
    shell = f'uv() {{ printf "%s\\n" "$@"; }}; {command}'
    done = subprocess.run(["sh", "-c", shell], env={"EXTRA": "gpu", "WITH": more}, capture_output=True, text=True)
    words = done.stdout.splitlines()
    assert [after for before, after in pairwise(words) if before == "--extra"] == wanted, done.stderr
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(wanted) <= set(extras) and "boto3" in words


def commands() -> list[tuple[str, str, str]]:
    texts = {path.name: path.read_text() for path in FILES if path.suffix in (".yaml", ".md")}
    texts |= {
        f"configs/{kind}/cluster.yaml": (ROOT / f"configs/{kind}/cluster.yaml").read_text()
        for kind in ("caption", "train")
    }
    return [(name, *found.group(2, 3)) for name, text in texts.items() for found in _COMMAND.finditer(text)]


@pytest.mark.parametrize(("source", "job", "arguments"), commands(), ids=lambda value: value.strip()[:60])
def test_every_command_names_a_job_and_options_that_are_there(source, job, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert job in JOBS, source
    parse_config(config_class(job), shlex.split(arguments), prog=f"jobs/{job}.py")


def test_there_are_commands_for_the_jobs_that_want_a_cluster():
    assert {job for _, job, _ in commands()} >= {"prepare", "caption", "train", "tune", "evaluate", "narrator"}


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_every_yaml_file_loads_as_data_alone(path):
    assert yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_what_looks_like_a_secret(path):
    assert not _SECRET.findall(path.read_text())


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_no_variable_with_a_secrets_name_has_its_value_in_a_file(path):
    def values(node: object):
        if isinstance(node, dict):
            if _SECRET_NAME.search(str(node.get("name", ""))) and "value" in node:
                yield node
            for key, value in node.items():
                is_place = key == "secretName" or str(value).startswith("~/")  # where it lies, not what it is
                if _SECRET_NAME.search(str(key)) and isinstance(value, str) and not is_place:
                    yield {key: value}
                yield from values(value)
        elif isinstance(node, list):
            for value in node:
                yield from values(value)

    assert not list(values(yaml.safe_load(path.read_text())))
