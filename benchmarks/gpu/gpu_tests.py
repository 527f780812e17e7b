"""The repository's own tests that need a GPU, in a process of their own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.rows import Row, absent, check, figure, one_line
from benchmarks.gpu.setting import Setting

ROOT = Path(__file__).resolve().parents[2]
# At the start of a line: a decorator, or the mark of a whole file.
MARK = re.compile(r"^(@|pytestmark\b.*)pytest\.mark\.gpu\b", re.MULTILINE)
# Without the checker of shapes and the shared fixtures: a checker and an S3 server, which this machine may lack.
OPTIONS = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--noconftest"]
OPTIONS += ["-o", "addopts=--strict-markers --import-mode=importlib"]


def files_with_gpu_tests() -> list[str]:
    """Return the test files that need a GPU; the others may import what this machine lacks."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if MARK.search(path.read_text())]


def gpu_tests(setting: Setting, _: str) -> Iterator[Row]:
    """Run `pytest -m gpu`; none may fail, none may be skipped."""
    if not setting.is_gpu:
        yield absent("pytest -m gpu", "needs --device cuda")
        return
    command = [sys.executable, "-m", "pytest", *OPTIONS, *files_with_gpu_tests()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = one_line((done.stdout.strip().splitlines() or [done.stderr])[-1])
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}
    yield figure("pytest -m gpu: passed", counts.get("passed", 0))
    bad = sum(number for word, number in counts.items() if word != "passed")
    yield check("pytest -m gpu: failed or skipped", bad if done.returncode == 0 else max(bad, 1), 0, last)
