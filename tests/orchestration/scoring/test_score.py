"""The command that scores a file of predictions: a table, a JSON file, and one line for what does not fit."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mama_ray.data.questions.table import QuestionSet, write_questions
from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import AnnotatedResult
from mama_ray.evaluation.question_protocol import QuestionResult
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.run import evaluate
from mama_ray.orchestration.scoring.job import ScoreJob
from mama_ray.orchestration.scoring.run import run, score_file
from mama_ray.storage.places import Place
from tests.data.questions.small_sets import open_question
from tests.evaluation.small_annotations import write_egtea
from tests.test_layout import ROOT


def prepared(tmp_path, dataset: str = "msvd_qa") -> dict:
    answers = ("man", "woman", "cat")
    questions = [open_question(place, answer, type="who", split="test") for place, answer in enumerate(answers)]
    write_questions(Place.of(tmp_path / "q.parquet"), QuestionSet(dataset, "open_ended", tuple(questions)))
    records = {f"q{place}": {"prediction": 1, "answer": right} for place, right in enumerate((1, 2, 0))}
    (tmp_path / "pred.json").write_text(json.dumps(records))
    (tmp_path / "words.json").write_text('["man", "woman"]')
    names = {"questions": "q.parquet", "predictions": "pred.json", "answers": "words.json"}
    paths = {name: str(tmp_path / file) for name, file in names.items()}
    return {"benchmark": "msvd_qa", "index_base": 1, "unknown": 0} | paths


def test_a_file_is_scored_and_the_result_names_what_it_is_of(tmp_path, capsys):
    line = run(ScoreJob(**prepared(tmp_path), output=str(tmp_path / "result.json")))
    result = QuestionResult.from_json((tmp_path / "result.json").read_text())
    assert result.metrics["accuracy"] == pytest.approx(100 / 3)
    assert (result.protocol.name, result.protocol.num_answers) == ("msvd_qa (3 of 13,157 questions)", 2)
    assert result.protocol.ceiling == pytest.approx(200 / 3)
    assert "who        33.33 %  1 of 3" in capsys.readouterr().out
    assert line.endswith(f"accuracy 33.33: {tmp_path}/result.json")


def test_the_program_says_in_one_line_what_does_not_fit(tmp_path):
    job = prepared(tmp_path) | {"index_base": 0}
    arguments = [part for name, value in job.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "jobs/score.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "records are not the questions'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"benchmark": "msvd"}, "msvd is a benchmark of retrieval"),
        ({"benchmark": "msrvtt_qa"}, "is not of msrvtt_qa: got questions of msvd_qa"),
        ({"benchmark": "msvdqa"}, "unknown benchmark"),
        ({"predictions": "nowhere.json"}, "no such file: got nowhere.json"),
        ({"answers": None}, "wanted the list of answers"),
        ({"questions": "nowhere.parquet"}, "no questions table"),
        ({"form": "option_numbers"}, "the form option_numbers is of multiple_choice questions"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        score_file(ScoreJob(**prepared(tmp_path) | changes))


def test_retrievals_evaluation_refuses_a_benchmark_of_questions():
    with pytest.raises(UserError, match="benchmark nextqa asks questions"):
        evaluate(EvaluateJob(benchmark="nextqa"))


def test_a_benchmark_of_an_unknown_family_is_told(tmp_path):
    (tmp_path / "mine.yaml").write_text("family: quiz\ndataset: mine\n")
    with pytest.raises(UserError, match="family in .*: got 'quiz', wanted one of retrieval, question_answering"):
        evaluate(EvaluateJob(benchmark=str(tmp_path / "mine.yaml")))


def test_scores_of_clips_are_scored_by_their_annotations(tmp_path, capsys):
    write_egtea(tmp_path, {"split1": [0, 1, 2]})
    np.savez(tmp_path / "scores.npz", **{"class": np.eye(3)})
    job = {"benchmark": "egtea", "predictions": str(tmp_path / "scores.npz"), "annotations": str(tmp_path)}
    line = run(ScoreJob(**job, output=str(tmp_path / "result.json")))
    result = AnnotatedResult.from_json((tmp_path / "result.json").read_text())
    assert (result.metrics["mean_class_accuracy"], result.protocol.score) == (100.0, "file")
    assert line.endswith(f"on egtea (3 of 106 classes), mean_class_accuracy 100.00: {tmp_path}/result.json")
    assert "mean_class_accuracy " in capsys.readouterr().out
    with pytest.raises(UserError, match="no annotations of egtea"):
        run(ScoreJob(**job | {"annotations": None}))
