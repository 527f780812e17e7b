"""A pickle of plain data is read without being run; everything else is refused, and named."""

import contextlib
import io
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from mama_ray.data.narrations.pickled_list import read_pickled_list
from mama_ray.errors import UserError

SHARED = ["#C C looks", "#C C walks"]
RECORDS = [
    ("uid-a", 0.5, 1.5, "#C C opens a drawer"),
    ("uid-a", 0.5, 1.5, SHARED, [1.25, float("inf")]),
    ("uid-b", 3, 70000, "ünïcode ✓ \n \\u1234", -2.5),
    ("uid-b", -(2**40), 2**70, SHARED, [True, None]),
    (),
    [[], [()]],
    "a" * 300,
    *range(1200),  # more than picklers write at a time
]


class Harmful:
    def __reduce__(self):
        return os.system, ("false",)


def read(folder, data: bytes) -> list:
    (folder / "x.pkl").write_bytes(data)
    return list(read_pickled_list(folder / "x.pkl"))


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol_is_what_python_reads(tmp_path, protocol):
    read_back = read(tmp_path, pickle.dumps(RECORDS, protocol))
    assert read_back == RECORDS and [type(one) for one in read_back] == [type(one) for one in RECORDS]
    assert read_back[1][3] is read_back[3][3] or protocol == 0  # what was one text is one
    assert read(tmp_path, pickle.dumps([], protocol)) == []
    written = io.BytesIO()
    pickle._Pickler(written, protocol).dump(RECORDS)  # the one written in Python
    assert read(tmp_path, written.getvalue()) == RECORDS


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Harmful(), "posix.system"),
        (Harmful, "Harmful"),
        (np.float64(1.5), "numpy"),
        (np.arange(3), "numpy"),
        (OrderedDict(a=1), "collections.OrderedDict"),
        ({"a": 1}, "a dict"),
        ({1}, "a set|builtins.set|__builtin__.set"),
        (b"bytes", "bytes|_codecs.encode"),
        (1 + 2j, "complex"),
        (len, "len"),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_everything_else_is_refused_by_name_before_anything_runs(tmp_path, value, named, protocol):
    data = pickle.dumps([("uid", 0.0, 1.0, "text"), ("uid", 0.0, 1.0, value)], protocol)
    with pytest.raises(UserError, match=f"(?s)the pickle holds more than plain data: got .*byte .*({named})"):
        read(tmp_path, data)


def test_a_harmful_pickle_runs_nothing(tmp_path):
    class Touch:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/harm",)

    for protocol in range(6):
        with pytest.raises(UserError, match="more than plain data"):
            read(tmp_path, pickle.dumps([Touch()], protocol))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_is_cut_off_anywhere_is_refused(tmp_path, protocol):
    data = pickle.dumps(RECORDS[:6], protocol)
    for length in [*range(40), *range(40, len(data), 7), len(data) - 1]:
        with pytest.raises(UserError, match=r"not a whole pickle|empty"):
            read(tmp_path, data[:length])


def test_damaged_bytes_give_one_line_or_other_data_and_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    whole = pickle.dumps(RECORDS[:7])
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        with contextlib.suppress(UserError):  # any other error fails the test
            read(tmp_path, bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x80\x04]\x94(h\x00h\x00h\x00e.", None),  # a list of itself: its items are lists
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.", "1152921504606846976 bytes are named, 2 are there"),
        (b"X\xff\xff\xff\xffx.", "4294967295 bytes are named"),
        (b"\x80\x04]r\xff\xff\xff\x7f.", "value 2147483647 is kept before 0"),
        (b"]h\x05.", "value 5 is not there"),
        (b"I" + b"9" * 100_000 + b"\n.", "a number of 100000 digits"),
        (b"\x8b" + struct.pack("<i", 1 << 30) + b"x.", "a number of gigabytes"),
        (b"]" * 100_001 + b".", "more than 100000 values wait"),
        (b")" + b"\x85" * 200_000 + b".", "holds no list: got .*tuple"),  # nested deeper than any recursion goes
        (b"](((((e.", "a mark where a value belongs"),
        (b"e.", "no mark"),
        (b")(e.", "appended to a tuple"),
        (b"\x80\x04.", "holds no list: got .*nothing"),
        (b"]].", "holds no list|whole"),
        (b"(lp0\n", "cut off"),
        (b"Vabc", "a line without an end"),
        (b"Fabc\n.", "cut off or damaged"),
        (b"\x8c\x02\xff\xfe.", "cut off or damaged"),
        (b"PK\x03\x04 a zip", "persistent object"),
        (b"\x1f\x8b gzip", "no opcode"),
    ],
)
def test_bombs_and_nonsense_give_one_line_and_take_no_memory(tmp_path, data, reason):
    if reason is None:
        assert read(tmp_path, data) == [[], [], []]
        return
    with pytest.raises(UserError, match=reason) as caught:
        read(tmp_path, data)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no such pickle"):
        list(read_pickled_list(tmp_path / "gone.pkl"))


def test_a_pipe_or_folder_is_no_pickle(tmp_path):
    os.mkfifo(tmp_path / "pipe.pkl")
    for path in (tmp_path, tmp_path / "pipe.pkl"):
        with pytest.raises(UserError, match="a pickle that is no file"):
            list(read_pickled_list(path))
