"""The rules of the layout that no other tool checks: what may be imported where, what is loaded, what is never done."""

import ast
import graphlib
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mama_ray.config import Config, load_config, parse_config
from mama_ray.evaluation.benchmarks import load_benchmark_file

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mama_ray"

# Which config class a folder of configs/ and a program of jobs/ stand for.
CONFIG_CLASSES = {
    "audit": "mama_ray.orchestration.audit.job:AuditJob",
    "app": "mama_ray.orchestration.serving.job:AppJob",
    "caption": "mama_ray.orchestration.captioning.job:CaptionJob",
    "demo": "mama_ray.experiments.demo.job:DemoJob",
    "duplicates": "mama_ray.orchestration.duplicates.job:DuplicatesJob",
    "features": "mama_ray.orchestration.features.job:FeaturesJob",
    "evaluate": "mama_ray.orchestration.evaluation.job:EvaluateJob",
    "index": "mama_ray.orchestration.indexing.job:IndexJob",
    "lavila": "mama_ray.experiments.lavila.job:LavilaJob",
    "narrate": "mama_ray.orchestration.narration.job:NarrateJob",
    "narrator": "mama_ray.orchestration.narrator.job:NarratorJob",
    "rephrase": "mama_ray.orchestration.rephrase.job:RephraseJob",
    "score": "mama_ray.orchestration.scoring.job:ScoreJob",
    "prompt": "mama_ray.captioning.prompts:PromptConfig",
    "prepare": "mama_ray.orchestration.prepare.job:PrepareJob",
    "encoder": "mama_ray.experiments.study.job:PretrainingConfig",
    "study": "mama_ray.experiments.study.job:StudyJob",
    "sweep": "mama_ray.orchestration.sweep.job:SweepJob",
    "train": "mama_ray.orchestration.training.job:TrainJob",
    "tune": "mama_ray.orchestration.sweep.job:SweepJob",
}
CONFIG_FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.y*ml"))
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))

# The only modules that may name Ray or vLLM.
IMPURE = (
    "mama_ray.orchestration",
    "mama_ray.experiments",
    "mama_ray.captioning.engines.vllm_setup",
    "mama_ray.captioning.engines.vllm_text",
)


def config_class(name: str) -> type[Config]:
    assert name in CONFIG_CLASSES, f"say in CONFIG_CLASSES of {Path(__file__).name} which class {name} stands for"
    module, _, class_name = CONFIG_CLASSES[name].partition(":")
    return getattr(importlib.import_module(module), class_name)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def pure_modules() -> list[str]:
    names = [module_name(path) for path in python_files("mama_ray")]
    return [name for name in names if not any(name == other or name.startswith(f"{other}.") for other in IMPURE)]


def imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", CONFIG_FILES, ids=str)
def test_every_config_file_loads_and_validates(path):
    if path.parts[1] == "benchmark":
        load_benchmark_file(ROOT / path)  # its class is that of its family
    else:
        load_config(config_class(path.parts[1]), ROOT / path)


def test_there_are_config_files_to_load():
    assert {path.parts[1] for path in CONFIG_FILES} >= {"benchmark"}


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_a_help_page_on_which_every_value_has_its_words(job, capsys):
    with pytest.raises(SystemExit) as leaving:
        parse_config(config_class(job), ["--help"], prog=f"jobs/{job}.py")
    assert leaving.value.code == 0
    assert "--" in capsys.readouterr().out
    silent = [path for path, text in field_texts(config_class(job)) if not text]
    assert not silent, "fields without a docstring"


@pytest.mark.parametrize("job", JOBS)
def test_a_help_page_is_shown_before_anything_heavy_is_imported(job):
    program = f"""
import runpy, sys
sys.argv = ["jobs/{job}.py", "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("heavy:", *sorted({{"torch", "ray", "vllm", "transformers", "av", "decord", "pandas"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage" in done.stdout.lower()
    assert done.stdout.splitlines()[-1].strip() == "heavy:"


def field_texts(of: type[Config], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    from mama_ray.config.fields import config_class_of

    for name, field in of.model_fields.items():
        yield f"{prefix}{name}", field.description
        inner = config_class_of(field.annotation)
        if inner is not None:
            yield from field_texts(inner, f"{prefix}{name}.")


def test_pure_packages_import_where_ray_and_vllm_are_absent():
    program = f"""
import importlib, importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "vllm"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for name in {pure_modules()!r}:
    importlib.import_module(name)
assert not {{"ray", "vllm"}} & set(sys.modules)
print("imported")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("imported\n", 0), done.stderr[-2000:]


def test_pure_packages_do_not_name_ray_or_vllm_even_inside_functions():
    pure = set(pure_modules())
    named = [
        (module_name(path), name)
        for path in python_files("mama_ray")
        if module_name(path) in pure
        for name in imported_names(ast.parse(path.read_text()))
        if name.partition(".")[0] in ("ray", "vllm")
    ]
    assert not named


def test_no_module_imports_another_in_a_circle():
    """Imports inside functions and for types alone count as well: a circle is one, however it is hidden."""
    paths = {module_name(path): path for path in python_files("mama_ray")}
    graph: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for imported in imported_names(ast.parse(path.read_text())):
            graph[name] |= {module for module in (imported, imported.rpartition(".")[0]) if module in paths} - {name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_importing_the_package_reads_no_environment_and_starts_nothing():
    forbidden = re.compile(
        r"^(os\.environ|os\.getenv|ray\.init|logging\.basicConfig|urllib|requests|torch\.manual_seed)\b"
    )
    found = []
    for path in python_files("mama_ray", "jobs"):
        pending: list[ast.AST] = list(ast.parse(path.read_text()).body)
        while pending:  # everything that runs at import: all but the bodies of functions
            node = pending.pop()
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.Import, ast.ImportFrom)):
                pending += ast.iter_child_nodes(node)
            if isinstance(node, (ast.Call, ast.Attribute)) and forbidden.search(ast.unparse(node)):
                found.append((module_name(path), node.lineno))
    assert not found


def test_nothing_that_comes_from_outside_can_run_code():
    """No pickle in any guise, no remote code, no eval; what loads tensors or arrays says that it loads data alone."""
    picklers = {"_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    found = []
    for path in python_files("mama_ray", "jobs"):
        tree = ast.parse(path.read_text())
        found += [(module_name(path), name) for name in imported_names(tree) if name.partition(".")[0] in picklers]
        attributes = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        # torch.load raises pickle's error for what its weights_only refuses
        attributes += [name for name in imported_names(tree) if name.startswith("pickle.")]
        found += [(module_name(path), name) for name in attributes if re.match(r"pickle\.(?!UnpicklingError$)", name)]
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            words = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
            name = ast.unparse(call.func)
            if (
                name in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load")
                or (name == "torch.load" and words.get("weights_only") is not True)
                or words.get("weights_only") is False
                or words.get("trust_remote_code", False) is not False
                or words.get("allow_pickle", False) is not False
            ):
                found.append((module_name(path), f"{name}, line {call.lineno}"))
    assert not found


def test_nothing_is_pickled_but_state_dicts():
    """torch.save writes a pickle, and numpy's save pickles objects unless told not to."""
    found = []
    for path in python_files("mama_ray", "jobs"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name, words = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            is_object = name == "torch.save" and not ast.unparse(call.args[0]).endswith(".state_dict()")
            may_pickle = name in ("np.save", "numpy.save") and words.get("allow_pickle") != "False"
            if is_object or may_pickle or name.endswith(".to_pickle"):
                found.append((module_name(path), f"{name}, line {call.lineno}"))
    assert not found


def test_files_and_functions_stay_short_enough_to_read():
    long_files = {
        str(path.relative_to(ROOT)): lines
        for path in python_files("mama_ray", "jobs", "tests", "benchmarks")
        if (lines := len(path.read_text().splitlines())) > 300
    }
    long_functions = {
        f"{path.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno
        for path in python_files("mama_ray", "jobs")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno - node.lineno >= 50
    }
    assert (long_files, long_functions) == ({}, {})


def test_every_module_says_what_it_holds_and_every_job_its_command_line():
    files = [path for path in python_files("mama_ray", "jobs", "benchmarks") if path.stat().st_size]
    assert not [str(path) for path in files if not ast.get_docstring(ast.parse(path.read_text()))]
    for path in python_files("jobs"):
        assert f"python jobs/{path.name}" in ast.get_docstring(ast.parse(path.read_text())), path


def test_no_module_is_named_for_nothing():
    empty = {"utils", "util", "helpers", "common", "misc", "base"}
    assert not [
        str(path) for path in python_files("mama_ray", "jobs", "tests") if {path.stem, path.parent.name} & empty
    ]


def test_no_file_knows_the_machine_it_was_written_on():
    machine = re.compile("/(" + "|".join(("work", "root", "opt", "home", "Users")) + r")/\w")
    folders = ("mama_ray", "jobs", "configs", "benchmarks", "docs", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [
        ROOT / name
        for name in ("Makefile", "README.md", "CONTRIBUTING.md", "pyproject.toml", "constraints.txt", ".ci/run")
    ]
    found = []
    for path in files:
        if path.suffix != ".pyc":
            lines = path.read_text(errors="ignore").splitlines()
            found += [
                f"{path.relative_to(ROOT)}:{i + 1}: {line}" for i, line in enumerate(lines) if machine.search(line)
            ]
    assert not found
