"""What a Range header asks for."""

import pytest

from mama_ray.orchestration.serving.byte_ranges import UNSATISFIABLE, parse_range


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=99-", (99, 100)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("Bytes = 5 - 6", (5, 7)),
    ],
)
def test_one_range_is_cut_where_the_content_ends(header, wanted):
    assert parse_range(header, 100) == wanted


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=500-600", "bytes=-0"])
def test_a_range_beyond_the_end_cannot_be_satisfied(header):
    assert parse_range(header, 100) is UNSATISFIABLE


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,5-6", "items=0-1", "bytes=a-b", "bytes=-1-2"),
        *("bytes=\u0663-", f"bytes={'9' * 40}-"),
    ],
)
def test_what_is_no_single_range_is_ignored(header):
    assert parse_range(header, 100) is None
