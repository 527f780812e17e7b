"""The documents tell the truth about the tree: the links, files, commands, modules and settings they name are there."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from docs.config_reference import TARGET, job_classes, render
from mama_ray.config import parse_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "cluster" / "README.md", *(ROOT / "docs").rglob("*.md")]
)

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PATH = re.compile(r"(?<![\w/.:<>-])((?:[\w-]+/)+[\w.-]+\.(?:py|md|ya?ml|json|jinja|svg|png|txt))(?![\w<*])")
_BARE_NAME = re.compile(r"`(\w+\.py)`")
_JOB = re.compile(r"python (jobs/\w+\.py)((?: +[^\s`#|&)]+)*)")
_MODULE = re.compile(r"(?<![\w/.-])mama_ray(?:\.\w+)+")
_IMPORT = re.compile(r"^from (mama_ray[\w.]*) import ([\w, ]+)", re.MULTILINE)
_MAKE = re.compile(r"(?:`|^(?:    )?)(?:\w+=\S+ +)*make ([\w-]+)", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(page.read_text()))
    return {heading.strip().replace(" ", "-") for heading in words}


def folders_of_the_tree() -> set[str]:
    """Return the folders by which a path of the repository begins: those of the root and of the package."""
    return {path.name for parent in (ROOT, ROOT / "mama_ray") for path in parent.iterdir() if path.is_dir()}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_inside_the_repository_leads_somewhere(page):
    broken = []
    for link in _LINK.findall(page.read_text()):
        place, _, anchor = link.partition("#")
        if "://" in place:
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_no_page_holds_the_marks_of_a_merge():
    marks = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert [name_of(page) for page in PAGES if marks.search(page.read_text())] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_a_page_names_is_there(page):
    tops = folders_of_the_tree() - {"runs"}  # what jobs write begins with runs/, too
    modules = {path.name for top in ("mama_ray", "tests", "benchmarks") for path in (ROOT / top).rglob("*.py")}
    missing = [name for name in _BARE_NAME.findall(page.read_text()) if name not in modules]
    for found in _PATH.findall(page.read_text()):
        top = found.partition("/")[0]
        is_ours = top in tops and "NAME" not in found
        places = (ROOT / found, ROOT / "mama_ray" / found, page.parent / found)
        if is_ours and not any(place.exists() for place in places):
            missing.append(found)
    assert not missing


def commands() -> list[tuple[str, str, str]]:
    """Return (file, program, arguments) of the pages, and of what configs and jobs say at their top."""
    files = [*PAGES, *sorted((ROOT / "configs").rglob("*.yaml")), *sorted((ROOT / "jobs").glob("*.py"))]
    return [(name_of(file), *found.groups()) for file in files for found in _JOB.finditer(one_line_each(file))]


def one_line_each(file: Path) -> str:
    """Return a file's text with each command on a line, and without the brackets of what a docstring calls optional."""
    text = re.sub(r"\\\n#?", " ", file.read_text())
    return re.sub(r"[\[\]]", " ", text) if file.suffix == ".py" else text


@pytest.mark.parametrize(("page", "program", "arguments"), commands(), ids=lambda value: value.strip()[:70])
def test_every_command_names_a_job_and_options_that_are_there(page, program, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(arguments)
    if "--help" in words:
        words.remove("--help")
    if words and words[0].endswith(".yaml") and (not words[0].startswith("configs/") or "NAME" in words[0]):
        words = words[1:]  # a file of the reader's own, or the one to choose
    parse_config(job_classes()[program], words, prog=program)


def test_there_are_commands_for_every_job_but_the_study():
    assert {program for _, program, _ in commands()} >= set(job_classes()) - {"jobs/study.py"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_module_that_a_page_names_can_be_imported(page):
    text = page.read_text()
    named = set(_MODULE.findall(text))
    for module, names in _IMPORT.findall(text):
        named |= {f"{module}.{name.strip()}" for name in names.split(",")}
    assert not [name for name in sorted(named) if not is_there(name)]


def is_there(name: str) -> bool:
    """Tell whether a dotted name is a module, or something in one."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        try:
            return hasattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError:
            return False
    return True


def test_every_target_of_make_that_a_page_names_is_there():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(name_of(page), target) for page in PAGES for target in _MAKE.findall(page.read_text())}
    assert not [(page, target) for page, target in sorted(named) if target not in targets]
    assert {target for _, target in named} >= {"demo", "test", "setup", "lint", "docs", "study"}


def test_the_page_of_settings_says_what_the_fields_say():
    assert TARGET.read_text() == render(), "a setting has changed: `make docs` renews docs/config.md"


def test_a_wrong_name_would_be_found():
    assert not is_there("mama_ray.models.no_such_module")
    assert not is_there("mama_ray.errors.NoSuchError")
    assert is_there("mama_ray.errors.UserError")
    assert _PATH.findall("see `data/index.py`, s3://BUCKET/data/x.json and models/<name>/load.py") == ["data/index.py"]
