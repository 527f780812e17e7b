"""The one form of errors that a user can put right."""

import pickle

import pytest

from mama_ray.errors import UserError, nearest_names, unknown_name


def test_error_says_what_got_wanted_remedy_in_this_order():
    error = UserError("clip end", got=3.0, wanted="> start 5.0", remedy="mend the row")
    assert str(error) == "clip end: got 3.0, wanted > start 5.0; mend the row"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "no clips"),
        ({"got": 0}, "no clips: got 0"),
        ({"got": ""}, "no clips: got "),
        ({"wanted": "one"}, "no clips: wanted one"),
        ({"remedy": "add some"}, "no clips; add some"),
    ],
)
def test_parts_that_are_not_given_are_left_out_and_false_values_are_not(parts, text):
    assert str(UserError("no clips", **parts)) == text


def test_error_is_one_line_of_bounded_length_whatever_it_is_given():
    text = str(UserError("bad\nfile", got="x\n" * 10_000, wanted="a\tb", remedy="do\nthis"))
    assert "\n" not in text
    assert len(text) < 500
    assert text.endswith("wanted a b; do this")


def test_error_survives_pickling_with_its_text():
    error = pickle.loads(pickle.dumps(UserError("a", got=1, wanted=2, remedy="b")))  # noqa: S301 - as Ray sends it
    assert type(error) is UserError
    assert str(error) == "a: got 1, wanted 2; b"


def test_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_unknown_name_lists_all_known_names_nearest_first():
    error = unknown_name("preset", "base32", ["tiny", "base_16", "base_32"])
    assert str(error) == "unknown preset: got base32, wanted one of base_32, base_16, tiny; did you mean base_32?"


def test_unknown_name_suggests_nothing_where_nothing_is_near():
    assert (
        str(unknown_name("preset", "zzz", iter(["tiny", "base_32"])))
        == "unknown preset: got zzz, wanted one of tiny, base_32"
    )


def test_unknown_name_among_no_names_says_so():
    assert str(unknown_name("run", "a", [])) == "unknown run: got a, wanted nothing: none is known"


def test_case_and_hyphens_do_not_hide_a_near_name():
    assert nearest_names("Warm-Up-Share", ["lr", "warm_up_share"]) == ["warm_up_share"]


def test_an_error_holds_no_secret_here_nor_in_another_process():
    error = UserError("storage", got="s3://key:hunter/2@bucket", wanted="a bucket", remedy="not ?sig=hunter2 but a key")
    assert str(error) == "storage: got s3://***@bucket, wanted a bucket; not ?sig=*** but a key"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(again), str(again)) == (UserError, str(error))


def test_control_characters_are_spelt_out():
    text = str(UserError("a\x1b[2Jb\x07", got="\u202egpj.exe\r\nx", wanted="grüße 日本\ud800"))
    assert text == r"a\x1b[2Jb\x07: got \u202egpj.exe x, wanted grüße 日本\ud800"
