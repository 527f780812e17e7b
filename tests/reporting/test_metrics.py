"""The table of names, and that whoever names a metric in the package names one of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.retrieval import retrieval_metrics
from mama_ray.reporting.metrics import METRICS, RETRIEVAL_KEYS, check_value, find_metric

PACKAGE = Path(__file__).resolve().parents[2] / "mama_ray"
GROUPS = "|".join(sorted({name.split("/")[0] for name in METRICS}))


def test_a_concrete_name_finds_its_pattern():
    assert find_metric("eval/msrvtt_1ka/t2v_R@1").name == "eval/<benchmark>/t2v_R@1"
    assert find_metric("train/loss").unit == "nats"


@pytest.mark.parametrize("name", ["train/los", "eval/msrvtt_1ka/t2v_R@2", "eval/<benchmark>/t2v_R@1", "eval/t2v_R@1"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UserError, match="metric"):
        find_metric(name)


def test_curves_are_lists_and_scalars_are_numbers():
    check_value("weights/curve_loss", [0.0, 1.0])
    check_value("train/loss", 1.0)
    for name, value in (("weights/curve_loss", 1.0), ("train/loss", [1.0])):
        with pytest.raises(UserError, match="wrong shape"):
            check_value(name, value)


def test_retrieval_writes_exactly_the_keys_of_the_table():
    assert tuple(retrieval_metrics(np.eye(2), np.eye(2), ["a", "b"], ["a", "b"])) == RETRIEVAL_KEYS


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_readers_and_writers_agree(path):
    for name in re.findall(rf'"((?:{GROUPS})/[a-z0-9_@/R]+)"', path.read_text()):
        find_metric(name)
