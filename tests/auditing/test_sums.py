"""Means of a record, by caption and by epoch, against sums by hand."""

import math

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.auditing.record import RECORD_SCHEMA
from mama_ray.auditing.sums import average_record
from mama_ray.errors import UserError

IDS = pa.array(["a", "b", "c"], pa.large_string())
OFFSETS = np.array([0, 1, 3, 4])  # b has two captions


def part(*rows: tuple) -> pa.Table:
    names = ("step", "epoch", "sample", "clip_id", "loss", "weight", "cosine")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=RECORD_SCHEMA)


def second_in_odd_epochs(rows: np.ndarray, samples: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    return np.where(rows == 1, epochs % 2, 0)


def test_means_are_of_the_caption_that_was_read_and_by_epoch_of_the_clip():
    parts = [
        part((0, 0, 0, "a", 1.0, 0.5, 0.1), (0, 0, 1, "b", 2.0, 1.5, 0.2)),
        part((1, 1, 1, "b", 4.0, 0.5, 0.4), (2, 2, 1, "b", 6.0, 2.5, None), (2, 2, 0, "a", None, None, None)),
    ]
    found = average_record(parts, IDS, OFFSETS, second_in_odd_epochs)
    assert found.count.tolist() == [1, 2, 1, 0]
    assert found.by_caption["weight"][:3].tolist() == [0.5, 2.0, 0.5]
    assert found.by_caption["loss"][:3].tolist() == [1.0, 4.0, 4.0]
    assert found.by_caption["cosine"][:3] == pytest.approx([0.1, 0.2, 0.4])
    assert math.isnan(found.by_caption["weight"][3])
    assert found.epochs == [0, 1, 2]
    assert found.by_epoch["loss"][:, 1].tolist() == [2.0, 4.0, 6.0]
    assert found.by_epoch["weight"][0, 0] == 0.5
    assert math.isnan(found.by_epoch["weight"][1, 0])


def test_an_epoch_whose_losses_are_no_numbers_has_its_weights():
    found = average_record([part((0, 0, 0, "a", math.nan, 0.5, 0.1))], IDS, OFFSETS, second_in_odd_epochs)
    assert found.by_epoch["weight"][0, 0] == 0.5
    assert np.isnan(found.by_epoch["loss"]).all()


def test_a_record_of_other_clips_is_refused():
    with pytest.raises(UserError, match="other clips"):
        average_record([part((0, 0, 0, "z", 1.0, 1.0, 1.0))], IDS, OFFSETS, second_in_odd_epochs)
