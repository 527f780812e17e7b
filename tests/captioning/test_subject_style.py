"""Ego4D's marks of subjects in three styles; whatever the text, it can be had back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.captioning.subject_style import restyle


@pytest.mark.parametrize(
    ("raw", "c_only", "person"),
    [
        ("#C C picks up a cup", "C picks up a cup", "the camera wearer picks up a cup"),
        ("#c c picks up a cup", "C picks up a cup", "the camera wearer picks up a cup"),
        ("#C picks up a cup", "C picks up a cup", "the camera wearer picks up a cup"),
        ("C looks around", "C looks around", "the camera wearer looks around"),
        ("#O a man X walks", "a man walks", "a man walks"),
        ("#O A woman Y talks to C", "A woman talks to C", "A woman talks to the camera wearer"),
        ("#O X waves", "someone waves", "someone waves"),
        ("#C C talks to a man Y", "C talks to a man", "the camera wearer talks to a man"),
        ("#C C talks to X", "C talks to someone", "the camera wearer talks to someone"),
        ("#C C holds #unsure in C's hand", "C holds something in C's hand",
         "the camera wearer holds something in the camera wearer's hand"),
        ("#C C folds the T-shirt of a man A", "C folds the T-shirt of a man",
         "the camera wearer folds the T-shirt of a man"),
        ("#C C turns a C clamp", "C turns a C clamp", "the camera wearer turns a C clamp"),
        ("#C C takes X's C-clamp and an L key", "C takes someone's C-clamp and an L key",
         "the camera wearer takes someone's C-clamp and an L key"),
        ("#O Y gives vitamin C to C", "someone gives vitamin C to C", "someone gives vitamin C to the camera wearer"),
        ("A man walks to plan B", "A man walks to plan B", "A man walks to plan B"),
        ("a small red circle moves to the left", "a small red circle moves to the left",
         "a small red circle moves to the left"),
        ("Cats eat vitamin C", "Cats eat vitamin C", "Cats eat vitamin C"),
        ("", "", ""),
    ],
)  # fmt: skip
def test_subjects_are_written_by_the_style(raw, c_only, person):
    assert restyle(raw, "keep").text == raw
    assert restyle(raw, "c_only").text == c_only
    assert restyle(raw, "person").text == person


TEXTS = st.text() | st.lists(
    st.sampled_from(["#C ", "#O ", "C ", "#c c ", "a man X ", "X", " Y ", "#unsure ", "woman B", "C's", "walks ", " "])
).map("".join)


@given(text=TEXTS, style=st.sampled_from(["keep", "c_only", "person"]))
def test_every_style_can_be_undone(text, style):
    assert restyle(text, style).raw() == text


def test_a_subject_is_the_same_in_windows_that_call_it_by_other_letters():
    first, second = (restyle(text, "person").text for text in ("#O a man X walks", "#O a man Z walks"))
    assert first == second
