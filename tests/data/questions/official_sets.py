"""The official files beside this checkout, each set read once for all tests."""

from functools import cache
from pathlib import Path

import pytest

from mama_ray.data.questions.official.msrvtt_qa import read_msrvtt_qa
from mama_ray.data.questions.official.msvd_qa import read_msvd_qa
from mama_ray.data.questions.official.next_qa import read_nextqa
from mama_ray.data.questions.official.tgif_qa import read_count
from mama_ray.data.questions.table import QuestionSet

ANNOTATIONS = Path(__file__).resolve().parents[3] / "../shared/data/annotations"


def official(name: str) -> Path:
    if not (ANNOTATIONS / name).exists():
        pytest.skip(f"official annotation file {name} is not beside this checkout")
    return ANNOTATIONS / name


@cache
def msrvtt_qa() -> QuestionSet:
    return read_msrvtt_qa(official("msrvtt_qa/test.csv"))


@cache
def msvd_qa() -> QuestionSet:
    return read_msvd_qa(official("msvd_qa/test_qa.json"))


@cache
def nextqa_val() -> QuestionSet:
    return read_nextqa(official("nextqa_mc/val.csv"), None, "val")


@cache
def tgif_count() -> QuestionSet:
    return read_count(official("tgif_qa/Test_count_question.csv"))
