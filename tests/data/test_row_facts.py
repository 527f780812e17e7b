"""What is kept of clips in memory: the kinds of their captions."""

import json

import pyarrow as pa

from mama_ray.data.row_facts import kinds_of


def table_of(truths: list) -> pa.Table:
    return pa.table({"truth": pa.array([None if truth is None else json.dumps(truth) for truth in truths])})


def test_the_kinds_are_those_that_truth_records():
    found = kinds_of(table_of([None, {"kind": "wrong"}, {"kind": "clean"}, {"kind": "swapped"}, {"kind": "wrong"}]))
    assert found is not None
    assert [found.names[code] for code in found.codes] == ["clean", "wrong", "clean", "swapped", "wrong"]
    assert kinds_of(table_of([None, None])) is None


def test_a_users_own_truth_records_no_kind():
    own = [
        {"verb": "open"},
        {"kind": None},
        {"kind": ["a"]},
        {},
        *({"kind": f"mine {number}"} for number in range(300)),
    ]
    assert kinds_of(table_of(own)) is None
    found = kinds_of(table_of([*own, {"kind": "wrong"}]))
    assert found is not None and found.names == ("clean", "wrong") and found.codes.tolist() == [0] * len(own) + [1]
