"""Which texts are the same, what is kept of candidates, and how paraphrases are written."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.captioning.engines.protocol import GeneratedText
from mama_ray.captioning.rephrasing.settings import WordingConfig
from mama_ray.captioning.rephrasing.wording import choose_paraphrases, clean_answer, remove_punctuation, text_key

KEEPING, REMOVING = WordingConfig(remove_punctuation=False), WordingConfig()


def candidates(*texts: str) -> list[GeneratedText]:
    return [GeneratedText(text, len(text.split()), "stop", -0.5) for text in texts]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("#C C opens the door.", "  c c  OPENS the\u00a0door!"),
        ("the man's hat", "the mans hat"),
        ("it\u2019s a t-shirt", "It's a t shirt"),
        ("\uff23\uff21\uff34 runs", "cat runs"),
        ("so\u00adft", "soft"),
        ("Stra\u00dfe", "STRASSE"),
        ("\u732b\u304c\u8d70\u308b\u3002", "\u732b\u304c\u8d70\u308b"),
    ],
)
def test_case_punctuation_and_blanks_make_no_other_text(one, other):
    assert text_key(one) == text_key(other) != ""


@pytest.mark.parametrize("text", ["", "  ", "...", "#", "\u200b", "\u2014 \u201c\u201d"])
def test_a_text_without_letters_has_no_key(text):
    assert text_key(text) == ""


def test_other_words_are_another_text():
    assert len({text_key(text) for text in ("a cat runs", "cats run", "a cat ran", "a cat runs 2")}) == 4


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("#C C opens the door, then leaves.", "#C C opens the door then leaves"),
        ("The man's t-shirt - it is red!", "The man's t-shirt it is red"),
        ("He adds 2.5 litres (of milk); stirs", "He adds 2.5 litres of milk stirs"),
        ("number #5 and C#", "number 5 and C"),
        ("...", ""),
    ],
)
def test_punctuation_goes_but_what_is_inside_words_and_numbers(text, wanted):
    assert remove_punctuation(text) == wanted


@given(st.text(string.printable + "\u2019\u2014\u732b\u00e9\u0301\u200d", max_size=60))
def test_removing_punctuation_keeps_every_word_and_is_done_once(text):
    once = remove_punctuation(text)
    assert remove_punctuation(once) == once
    assert [char for char in once if char.isalnum()] == [char for char in text if char.isalnum()]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('"A dog runs."', "A dog runs."),
        ("\n\n Paraphrase: A dog runs.\nAnother one runs.", "A dog runs."),
        ("'\u201cA dog runs\u201d'", "A dog runs"),
        ("A  dog\truns", "A dog runs"),
        ("'s", "'s"),
    ],
)
def test_an_answer_is_its_first_line_without_quotes_and_label(text, wanted):
    assert clean_answer(text, KEEPING) == wanted


def test_the_first_candidates_that_differ_are_kept_and_the_others_are_counted():
    found = candidates(
        "a DOG runs!", "A hound runs", "...", "a hound runs.", "the dog is running", "a hound races", "x"
    )
    choice = choose_paraphrases(
        found, sources=["A dog runs.", "The dog is running"], others=set(), num_kept=2, wording=REMOVING
    )
    assert [(one.text, one.number) for one in choice.kept] == [("A hound runs", 1), ("a hound races", 5)]
    counts = (choice.num_looked_at, choice.num_equal, choice.num_repeated, choice.num_empty)
    assert counts == (6, 2, 1, 1)


def test_what_was_cut_off_is_no_paraphrase():
    cut = GeneratedText("a hound runs over the", 5, "length", -0.1)
    choice = choose_paraphrases(
        [cut, *candidates("a hound runs")], sources=["a dog runs"], others=set(), num_kept=2, wording=KEEPING
    )
    assert [one.text for one in choice.kept] == ["a hound runs"] and choice.num_cut_off == 1
    assert choice.reason == "too few different paraphrases: of 2 candidates 1 cut off"


def test_why_there_are_no_more_is_told_with_numbers():
    choice = choose_paraphrases(
        candidates("a", "A!", "b", ""), sources=["a"], others={"b"}, num_kept=3, wording=REMOVING
    )
    assert choice.kept == []
    assert choice.reason == (
        "too few different paraphrases: of 4 candidates 2 equal a human caption, 1 repeat another, 1 say nothing"
    )


@given(
    st.lists(st.text("ab .,'-C#", max_size=6), max_size=12),
    st.lists(st.text("ab .,'-C#", max_size=6), max_size=3),
    st.integers(1, 4),
    st.booleans(),
)
def test_nothing_kept_equals_a_source_or_another(texts, sources, num_kept, removes):
    others: set[str] = set()
    wording = WordingConfig(remove_punctuation=removes)
    choice = choose_paraphrases(candidates(*texts), sources=sources, others=others, num_kept=num_kept, wording=wording)
    keys = [text_key(one.text) for one in choice.kept]
    assert len(set(keys)) == len(keys) <= num_kept and "" not in keys
    assert not {*keys} & {text_key(text) for text in sources} and {*keys} == others
    left_out = choice.num_equal + choice.num_repeated + choice.num_empty
    assert choice.num_looked_at == left_out + len(keys)
    assert len(keys) == num_kept or choice.num_looked_at == len(texts)
