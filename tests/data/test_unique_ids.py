"""Ids that come more than once are found, whether their hashes are held or written."""

import numpy as np
import pytest

from mama_ray.data import unique_ids
from mama_ray.data.unique_ids import hash_of_id, hashed_ids


@pytest.mark.parametrize("held", [1, 100, 1 << 20])
def test_repeated_ids_are_those_that_came_twice(monkeypatch, held):
    monkeypatch.setattr(unique_ids, "_HELD", held)
    numbers = np.random.default_rng(0).integers(0, 3000, 1000)
    values, counts = np.unique(numbers, return_counts=True)
    with hashed_ids() as ids:
        for start in range(0, 1000, 64):
            ids.add([f"clip-{number}" for number in numbers[start : start + 64]])
        assert ids.repeated() == {hash_of_id(f"clip-{number}") for number in values[counts > 1]}


def test_no_ids_are_none_twice():
    with hashed_ids() as ids:
        assert ids.repeated() == set()
