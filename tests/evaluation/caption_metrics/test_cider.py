"""CIDEr-D: the field's program, the bounds that its definition has, and a twin made of dense vectors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.evaluation.caption_metrics.cider import cider_d
from tests.evaluation.caption_metrics.examples import HYPOTHESES, OFFICIAL_CIDER_D_OF_ITEMS, REFERENCES

WORDS = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=8)


def test_it_is_that_of_the_fields_program():
    mean, scores = cider_d([text.split() for text in HYPOTHESES], [[r.split() for r in own] for own in REFERENCES])
    assert scores == pytest.approx(OFFICIAL_CIDER_D_OF_ITEMS, rel=1e-12)
    assert mean == pytest.approx(4.674083457173733, rel=1e-12)


def test_a_caption_that_is_its_only_reference_scores_ten_where_its_words_are_rare():
    captions = ["a red ring spins", "the blue star grows quickly", "two people wash dishes together now"]
    words = [text.split() for text in captions]
    mean, scores = cider_d(words, [[own] for own in words])
    assert scores == pytest.approx([10.0] * 3)
    assert mean == pytest.approx(10.0)


def test_three_words_have_no_run_of_four_and_cannot_score_ten():
    words = [["a", "red", "ring"], ["the", "blue", "star"]]
    assert cider_d(words, [[own] for own in words])[1] == pytest.approx([7.5, 7.5])


def test_a_corpus_of_one_item_scores_nothing():
    words = ["a", "red", "ring", "spins", "around"]
    assert cider_d([words], [[words]]) == (0.0, [0.0])
    assert cider_d([], []) == (0.0, [])


@given(WORDS, st.integers(1, 5), st.data())
def test_a_word_said_more_often_than_the_reference_says_it_cannot_raise_the_score(reference, num_more, data):
    others = [["x", "y", "z", "w"], ["u", "v", "x", "y"]]
    repeated = data.draw(st.sampled_from(reference))
    score = cider_d([reference, *others], [[reference], *([o] for o in others)])[1][0]
    longer = [*reference, *[repeated] * num_more]
    assert cider_d([longer, *others], [[reference], *([o] for o in others)])[1][0] <= score + 1e-9


def test_the_same_words_in_another_length_lose_by_the_number_of_bigrams():
    """`b c` twice instead of once: clipped to the reference's count, in a longer vector, and two bigrams too many."""
    others = [list("xyzw"), list("uvts")]
    reference = list("abcd")
    score = cider_d([list("abcdbc"), *others], [[reference], *([o] for o in others)])[1][0]
    cosines = [4 / math.sqrt(4 * 10), 3 / math.sqrt(3 * 7), 2 / math.sqrt(2 * 4), 1 / math.sqrt(3)]
    assert score == pytest.approx(10 * sum(cosines) / 4 * math.exp(-4 / 72))


@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_it_is_the_dense_definition(items):
    hypotheses, references = [h for h, _ in items], [r for _, r in items]
    assert cider_d(hypotheses, references)[1] == pytest.approx(dense_cider_d(hypotheses, references), abs=1e-9)


def dense_cider_d(hypotheses, references) -> list[float]:
    """The definition with one column per n-gram that there is, written down separately."""
    scores = np.zeros(len(hypotheses))
    for n in (1, 2, 3, 4):
        runs = sorted(
            {tuple(words[i : i + n]) for own in [*references, hypotheses] for words in own for i in starts(words, n)}
        )
        if not runs:
            continue
        counted = [[np.array([count(words, run) for run in runs]) for words in own] for own in references]
        has = np.array([np.max([vector > 0 for vector in own], axis=0) for own in counted])
        idf = np.log(len(references)) - np.log(np.maximum(1, has.sum(axis=0)))
        for item, (words, own) in enumerate(zip(hypotheses, references, strict=True)):
            mine = np.array([count(words, run) for run in runs]) * idf
            for other, vector in zip(own, counted[item], strict=True):
                theirs = vector * idf
                norms = np.linalg.norm(mine) * np.linalg.norm(theirs)
                cosine = np.minimum(mine, theirs) @ theirs / norms if norms else 0.0
                scores[item] += cosine * np.exp(-((len(words) - len(other)) ** 2) / 72) * 10 / 4 / len(own)
    return scores.tolist()


def starts(words, n) -> range:
    return range(len(words) - n + 1)


def count(words, run) -> int:
    return sum(tuple(words[start : start + len(run)]) == run for start in range(len(words)))
