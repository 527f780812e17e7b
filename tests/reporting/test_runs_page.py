"""The page over all runs of a storage: every run is on it, damaged ones with their reason, with links to their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import AnnotatedProtocol, AnnotatedResult
from mama_ray.evaluation.protocol import ResultFile
from mama_ray.reporting.runs_page import benchmark_columns, read_runs, write_runs_page
from mama_ray.reporting.writers import MetricsWriter
from mama_ray.storage.places import Place
from tests.evaluation.test_protocol import make_result


@pytest.fixture
def storage(tmp_path):
    for number, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        with MetricsWriter(Place.of(tmp_path / name), tensorboard=False) as writer:
            for step in (4, 8):
                writer.write(step, {"train/loss": 1.0, "throughput/step_s": 0.5, "val/t2v_R@1": 10.0 * number + step})
        (tmp_path / name / "environment.json").write_text(json.dumps({"started_s": 86400.0 * number}))
    (tmp_path / "second" / "evaluation").mkdir()
    result = ResultFile(benchmark="mine", results=(make_result(),), duration_s=1.0)
    (tmp_path / "second" / "evaluation" / "mine.json").write_text(result.to_json())
    (tmp_path / "second" / "report").mkdir()
    (tmp_path / "second" / "report" / "index.html").write_text("<p>")
    (tmp_path / "told").mkdir()
    with MetricsWriter(Place.of(tmp_path / "told"), tensorboard=False) as writer:
        writer.write(2, {"train/caption_loss": 2.0, "val/caption_loss": 1.5})
    (tmp_path / "embedded" / "shards").mkdir(parents=True)  # no run
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "metrics.jsonl").write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    return tmp_path


def test_every_run_is_read_and_the_latest_comes_first(storage):
    runs = {run.name: run for run in read_runs(Place.of(storage))}
    assert set(runs) == {"first", "second", "told", "damaged"}
    assert "line 2" in runs["damaged"].trouble
    second = runs["second"]
    assert (second.num_steps, second.duration_s, second.best_val, second.started) == (
        8,
        4.0,
        18.0,
        "1970-01-02 00:00 UTC",
    )
    assert [protocol.name for protocol in second.results] == [make_result().protocol.name]
    assert second.page == "second/report/index.html"
    assert (runs["told"].kind, runs["told"].best_loss) == ("narrator", 1.5)
    names = list(runs)
    assert names.index("second") < names.index("first")


def test_the_page_links_to_the_runs_own(storage):
    done = subprocess.run(
        [sys.executable, "-m", "mama_ray.reporting.runs_page", str(storage)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(storage / "index.html")
    page = (storage / "index.html").read_text()
    assert 'href="second/report/index.html"' in page and "1.500 nats" in page and "cannot be read" in page


def test_a_storage_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="no runs"):
        write_runs_page(str(tmp_path))


def test_a_part_of_a_benchmark_and_another_data_set_of_its_name_have_columns_of_their_own(tmp_path):
    whole = make_result()
    changes = {"whole": {}, "part": {"deviation": "900 of 1,000", "num_videos": 900}, "other": {"ids_sha256": "f" * 64}}
    for name, change in changes.items():
        (tmp_path / name).mkdir()
        with MetricsWriter(Place.of(tmp_path / name), tensorboard=False) as writer:
            writer.write(2, {"train/loss": 1.0})
        result = whole.model_copy(update={"protocol": whole.protocol.model_copy(update=change)})
        file = ResultFile(benchmark=result.protocol.name, results=(result,), duration_s=1.0)
        (tmp_path / name / "evaluation").mkdir()
        (tmp_path / name / "evaluation" / "same_name.json").write_text(file.to_json())
    runs = read_runs(Place.of(tmp_path))
    columns = benchmark_columns(runs)
    assert len(columns) == 3
    assert f"{whole.protocol.dataset} (900 of 1,000)" in columns
    assert f"{whole.protocol.name}, ids_sha256 {'f' * 12}" in columns
    for run in runs:
        assert sum(protocol in run.results for protocol in columns.values()) == 1
    page = Path(write_runs_page(str(tmp_path))).read_text()
    assert all(name in page for name in columns)


def test_a_result_of_another_version_hides_no_run(storage, caplog):
    file = ResultFile(benchmark="mine", results=(make_result(),), duration_s=1.0)
    for name, text in {"later": file.to_json().replace('"version": 1', '"version": 2'), "other": "[1, 2]"}.items():
        (storage / "second" / "evaluation" / f"{name}.json").write_text(text)
    second = next(run for run in read_runs(Place.of(storage)) if run.name == "second")
    assert (second.trouble, second.num_steps, len(second.results)) == ("", 8, 1)
    assert "later.json is left out" in caplog.text
    assert "other.json is left out" in caplog.text


def test_a_result_of_another_family_is_no_unknown_file(storage, caplog):
    protocol = AnnotatedProtocol(
        dataset="egomcq", split="test", family="multiple_choice", ids_sha256="f" * 64, num_clips=5, num_texts=1,
        score="cosine",
    )  # fmt: skip
    result = AnnotatedResult(protocol=protocol, source="x", metrics={"accuracy_inter": 100.0})
    (storage / "second" / "evaluation" / "egomcq.json").write_text(result.to_json())
    second = next(run for run in read_runs(Place.of(storage)) if run.name == "second")
    assert (second.trouble, len(second.results)) == ("", 1)
    assert "egomcq.json" not in caplog.text
