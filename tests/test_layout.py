"""The layout's promises: what imports what, what every file may hold, and that every config file is one."""

import ast
import re
import subprocess
import sys
import tokenize
from importlib import import_module
from pathlib import Path

import pytest

from mama_ray.config import load_config

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mama_ray"
PROGRAMS = sorted(path for folder in ("mama_ray", "jobs", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
CODE = [*PROGRAMS, *sorted((ROOT / "tests").rglob("*.py"))]
CONFIG_FILES = sorted((ROOT / "configs").rglob("*.y*ml"))

# What a file of configs/<folder>/ is: the root of a job, or what a job's field names.
CONFIG_CLASSES = {
    "train": "mama_ray.orchestration.train:TrainJob",
    "prepare": "mama_ray.orchestration.prepare:PrepareJob",
    "demo": "mama_ray.orchestration.demo:DemoJob",
    "evaluate": "mama_ray.orchestration.evaluate:EvaluateJob",
    "benchmark": "mama_ray.evaluation.protocol:BenchmarkConfig",
}

# Loading what came from outside must never run what came from outside.
FORBIDDEN_CALLS = {
    "pickle": re.compile(r"\b(?:cloudpickle|pickle|dill|joblib|marshal|shelve)\.(?:loads?|open|Unpickler)\("),
    "YAML that makes objects": re.compile(
        r"\byaml\.(?:load|load_all)\((?![^\n]*Loader=_Loader)|\b(?:Unsafe|Full)Loader\b"
    ),
    "torch.load of objects": re.compile(r"weights_only\s*=\s*False"),
    "arrays of objects": re.compile(r"allow_pickle\s*=\s*True"),
    "code of a model hub": re.compile(r"trust_remote_code\s*=\s*True"),
}
# Folders of one machine; they mean nothing on another.
MACHINE_PATH = re.compile(r"""(?<![\w.<>/:-])/(?:work|root|home|opt|Users|mnt)/[A-Za-z0-9_.-]""")


def modules(*, pure: bool) -> list[str]:
    """Names of the package's modules; pure ones are those outside orchestration/."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not pure or "orchestration" not in parts:
            names.append(".".join(parts).removesuffix(".__init__"))
    return names


def test_pure_modules_import_without_ray_and_vllm():
    program = f"""
import sys
sys.modules["ray"] = sys.modules["vllm"] = None  # importing one is an ImportError from here on
from importlib import import_module
for name in {modules(pure=True)!r}:
    import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.ray
def test_importing_every_module_starts_nothing():
    program = f"""
from importlib import import_module
for name in {modules(pure=False)!r}:
    import_module(name)
import multiprocessing, threading, ray
assert not ray.is_initialized()
assert not multiprocessing.active_children()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_file_loads_and_validates(path):
    folder = path.relative_to(ROOT / "configs").parts[0]
    module, _, name = CONFIG_CLASSES[folder].partition(":")
    load_config(getattr(import_module(module), name), path)


def test_config_files_are_found():
    assert CONFIG_FILES


@pytest.mark.parametrize("kind", sorted(FORBIDDEN_CALLS))
def test_nothing_from_outside_is_ever_executed(kind):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in PROGRAMS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if FORBIDDEN_CALLS[kind].search(line)
    ]
    assert not found


@pytest.mark.parametrize("line", ["pickle.load(stream)", "yaml.load(text)", "torch.load(p, weights_only=False)"])
def test_the_search_for_forbidden_calls_finds_one(line):
    assert any(pattern.search(line) for pattern in FORBIDDEN_CALLS.values())


def test_torch_load_always_says_weights_only():
    found = []
    for path in CODE:
        for node in ast.walk(_tree(path)):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "torch.load":
                continue
            if not any(keyword.arg == "weights_only" for keyword in node.keywords):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_no_file_is_longer_than_300_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in CODE}
    assert not {path: length for path, length in lengths.items() if length > 300}


def test_no_file_names_a_folder_of_one_machine():
    texts = [*CODE, *CONFIG_FILES, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "Makefile", ROOT / "pyproject.toml"]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found


def test_every_module_says_what_it_holds():
    missing = [
        str(path.relative_to(ROOT)) for path in PROGRAMS if path.stat().st_size and not ast.get_docstring(_tree(path))
    ]
    assert not missing


def test_every_job_says_its_command_line_first():
    for path in sorted((ROOT / "jobs").glob("*.py")):
        assert f"python jobs/{path.name}" in (ast.get_docstring(_tree(path)) or ""), path


def _tree(path: Path) -> ast.Module:
    with tokenize.open(path) as stream:
        return ast.parse(stream.read())
