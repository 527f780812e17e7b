"""The program for a GPU machine, on a CPU: its rows, its record, and what it makes of a case that fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What such a machine may lack. A finder that knows them not, as where they are not installed.
ABSENT = """
import sys
from importlib.machinery import PathFinder

ABSENT = {"ray", "vllm", "av", "decord", "webdataset", "optuna", "s3fs", "beartype", "tyro", "moto", "boto3", "psutil"}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""


def run_program(folder: Path, *options: str) -> tuple[int, dict, str]:
    """Return the exit status, the record, and what was printed."""
    (folder / "sitecustomize.py").write_text(ABSENT)  # Python runs it at the start of every process
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--max-batch", "2"]
    command += ["--output", str(folder / "gpu.json"), *options]
    environment = {"PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (folder / "gpu.json").exists(), done.stderr[-2000:]
    return done.returncode, json.loads((folder / "gpu.json").read_text()), done.stdout


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    return run_program(folder, "--preset", "tiny", "--skip", "compile")  # compiling takes a minute on a CPU


def test_every_check_holds_where_ray_and_vllm_and_more_are_absent(whole_run):
    status, record, _ = whole_run
    bad = [row for row in record["rows"] if row["verdict"] in ("failed", "error", "not run")]
    assert not bad
    assert status == 0 and record["all_checks_hold"] and record["is_finished"]


def test_every_case_has_rows_with_a_number_or_the_reason_why_there_is_none(whole_run):
    from benchmarks.gpu.cases import KINDS

    rows = whole_run[1]["rows"]
    assert {row["case"].split()[0] for row in rows} == set(KINDS) - {"compile"}
    for row in rows:
        assert (row["value"] is None) == (row["verdict"] == "not available"), row
        assert (row["bound"] is None) == (row["verdict"] != "ok"), row
        assert row["value"] is not None or row["note"], row
    names = {row["name"] for row in rows}
    assert {f"hypergradient, forward mode, shared, {kind}" for kind in ("float64", "float32", "bf16")} <= names
    assert {"DDP over gloo: hypergradient", "clips per second", "share of the measured product's rate"} <= names
    by_name = {row["name"]: row["value"] for row in rows}
    assert by_name["forward mode, shared, r = 0.25: time over plain"] > 1


def test_the_table_comes_last_and_has_all_rows(whole_run):
    _, record, printed = whole_run
    lines = printed.strip().splitlines()
    assert len(lines) == len(record["rows"]) + 2
    assert "torch" in lines[0] and lines[-1].startswith("every check holds")


def test_a_case_that_fails_is_a_row_and_the_run_goes_on(tmp_path):
    options = ("--preset", "tiny", "nonsense", "--case", "autocast", "chip")
    status, record, _ = run_program(tmp_path, *options)
    verdicts = {row["case"]: row["verdict"] for row in record["rows"]}
    assert verdicts == {"autocast tiny": "ok", "autocast nonsense": "error", "chip": "measured"}
    (row,) = [row for row in record["rows"] if row["verdict"] == "error"]
    assert "nonsense" in row["note"] and "base_32" in row["note"]
    assert status == 1 and not record["all_checks_hold"] and record["is_finished"]


def test_a_case_is_stopped_after_its_time_and_what_no_time_is_left_for_is_told(tmp_path):
    status, record, _ = run_program(
        tmp_path, "--preset", "tiny", "--case", "hypergradient", "--seconds-per-case", "0.1"
    )
    (row,) = record["rows"]
    assert row["verdict"] == "error" and "stopped" in row["note"] and status == 1
    status, record, _ = run_program(tmp_path, "--preset", "tiny", "--limit-minutes", "0", "--case", "ddp", "chip")
    assert [row["verdict"] for row in record["rows"]] == ["not run", "not run"] and status == 1


def test_every_kind_of_case_has_its_function_and_its_line_in_the_document():
    from benchmarks.gpu.cases import KINDS
    from benchmarks.gpu.measures import MEASURES

    assert list(MEASURES) == KINDS
    page = (ROOT / "docs" / "gpu.md").read_text()
    assert not [kind for kind in KINDS if f"| `{kind}` |" not in page]


def test_missing_packages_are_named(monkeypatch):
    from benchmarks.gpu import __main__ as program

    assert program.what_is_missing() is None
    monkeypatch.setitem(program.NEEDED, "no_such_module", "no-such-package")
    words = program.what_is_missing()
    assert words is not None and "no-such-package" in words and "--find-links" in words


def test_a_nan_is_no_value_below_its_bound():
    from benchmarks.gpu.rows import check

    assert check("error", float("nan"), 1.0).verdict == "failed"
    assert check("error", 1.0, 1.0).verdict == "ok"


def test_attention_is_noted_with_the_shapes_of_the_model(monkeypatch):
    import torch

    from benchmarks.gpu.plain import _NotesAttention, attention_of
    from mama_ray.models.attention import causal_attention

    queries = torch.randn(2, 5, 8)
    with _NotesAttention() as notes:
        causal_attention(queries, queries, queries, 4)
    (call,) = notes.calls
    assert call.queries == call.keys == (2, 4, 5, 2) and call.is_causal and call.mask is None
    attention_of(call, "cpu")()
