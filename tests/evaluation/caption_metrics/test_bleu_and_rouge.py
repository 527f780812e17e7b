"""BLEU and ROUGE-L: the field's program, counting by hand, and a twin that knows no dynamic programme."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.evaluation.caption_metrics.bleu import corpus_bleu
from mama_ray.evaluation.caption_metrics.rouge import longest_common_subsequence, mean_rouge_l, rouge_l
from tests.evaluation.caption_metrics.examples import (
    HYPOTHESES,
    OFFICIAL_BLEU,
    OFFICIAL_ROUGE_L_OF_ITEMS,
    REFERENCES,
)

WRITTEN = [text.split() for text in HYPOTHESES]
WANTED = [[text.split() for text in own] for own in REFERENCES]
WORDS = st.lists(st.sampled_from("abcd"), max_size=7)


def test_bleu_is_that_of_the_fields_program():
    assert corpus_bleu(WRITTEN, WANTED) == pytest.approx(OFFICIAL_BLEU, rel=1e-8)


def test_rouge_l_is_that_of_the_fields_program():
    scores = [rouge_l(words, own) for words, own in zip(WRITTEN, WANTED, strict=True)]
    assert scores == pytest.approx(OFFICIAL_ROUGE_L_OF_ITEMS, abs=1e-8)
    assert mean_rouge_l(WRITTEN, WANTED) == pytest.approx(0.8174396341618452)


def test_bleu_counted_by_hand():
    """Unigrams: 2 of `the` are allowed, 2 of 7; no bigram is right. The classic example of clipping."""
    hypothesis = [["the"] * 7]
    references = [[["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]]
    bleu = corpus_bleu(hypothesis, references)
    assert bleu == [pytest.approx(2 / 7), 0, 0, 0]


def test_a_short_hypothesis_pays_the_brevity_penalty_against_the_closest_reference():
    words = ["a", "b", "c", "d"]
    references = [[["a", "b", "c", "d", "e", "f"], list("abcdefghij")]]
    assert corpus_bleu([words], references) == [pytest.approx(math.exp(1 - 6 / 4))] * 4
    # Of two that are as close the shorter: no penalty.
    assert corpus_bleu([words], [[["a", "b", "c"], ["a", "b", "c", "d", "e"]]])[0] == pytest.approx(1.0)


def test_counts_are_summed_over_the_corpus_before_they_are_divided():
    bleu = corpus_bleu([["a"], ["x", "b", "c"]], [[["a"]], [["y", "b", "c"]]])
    assert bleu[0] == pytest.approx(3 / 4)
    assert bleu[1] == pytest.approx(math.sqrt(3 / 4 * 1 / 2))


def test_what_says_nothing_scores_nothing():
    assert corpus_bleu([[]], [[["a"]]]) == [0.0] * 4
    assert rouge_l([], [["a"]]) == rouge_l(["a"], [[]]) == mean_rouge_l([], []) == 0.0


@given(WORDS, WORDS)
def test_the_longest_common_subsequence_is_that_of_trying_all(first, second):
    def subsequences(words):
        return {chosen for size in range(len(words) + 1) for chosen in itertools.combinations(words, size)}

    longest = max(len(chosen) for chosen in subsequences(first) & subsequences(second))
    assert longest_common_subsequence(first, second) == longest


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_scores_lie_between_nothing_and_all(captions):
    references = [[words or ["a"]] for words in reversed(captions)]
    for score in (*corpus_bleu(captions, references), mean_rouge_l(captions, references)):
        assert 0.0 <= score <= 1.0 + 1e-12
