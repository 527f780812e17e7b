"""Relevance and scores of EK-100 against double loops, hand examples and what the official code gives."""

import json

import numpy as np
import pytest

from mama_ray.data.benchmarks.ek100 import read_caption_list, read_segments
from mama_ray.errors import UserError
from mama_ray.evaluation.multi_instance import (
    ActionClasses,
    compute_relevance,
    mean_metrics,
    require_query_positives,
    score_both_ways,
    score_queries,
    similarity_of_features,
    similarity_of_matrix,
)
from tests.data.benchmarks.official import official


@pytest.fixture(scope="module")
def classes():
    """The classes of the official test clips, and at which of them each caption stands."""
    segments = read_segments(official("epic100/EPIC_100_retrieval_test.csv"), "test")
    captions = read_caption_list(official("epic100/EPIC_100_retrieval_test_sentence.csv"), segments)
    nouns = [one.nouns for one in segments]
    return ActionClasses.of([one.verb for one in segments], nouns, num_nouns=300), np.array(captions.segments)


def small(rng, num_videos: int = 30, num_texts: int = 17) -> tuple[ActionClasses, ActionClasses]:
    """Videos of which each has a text of its classes, and texts of which each has such a video."""
    nouns = [sorted(set(rng.integers(0, 6, rng.integers(1, 4)).tolist())) for _ in range(num_texts)]
    texts = ActionClasses.of(rng.integers(0, 4, num_texts).tolist(), nouns, num_nouns=6)
    return texts.take(np.r_[np.arange(num_texts), rng.integers(0, num_texts, num_videos - num_texts)]), texts


def test_relevance_equals_a_double_loop():
    videos, texts = small(np.random.default_rng(0))
    found = compute_relevance(videos, texts)
    for i in range(len(videos)):
        for j in range(len(texts)):
            own, other = set(np.flatnonzero(videos.nouns[i])), set(np.flatnonzero(texts.nouns[j]))
            wanted = 0.5 * ((videos.verbs[i] == texts.verbs[j]) + len(own & other) / len(own | other))
            assert found[i, j] == wanted


def test_relevance_of_the_official_files_is_the_published_one(classes):
    """62,535 pairs have relevance 1; the sum and the counts are those of the official pickle."""
    videos, places = classes
    texts = videos.take(places)
    total, positives, related, own = 0.0, 0, 0, []
    for start in range(0, len(videos), 512):
        relevance = compute_relevance(videos.take(slice(start, start + 512)), texts)
        total += relevance.sum()
        positives += (relevance == 1).sum()
        related += (relevance > 0).sum()
        own += (relevance == 1).sum(1).tolist()
    assert (len(videos), len(texts), positives, related) == (9668, 3842, 62_535, 4_224_956)
    assert total == pytest.approx(2_040_309.2333, abs=1e-4)
    assert (min(own), max(own), round(np.mean(own), 4)) == (1, 25, 6.4682)


@pytest.mark.slow  # half a minute of sorting
def test_the_official_numbers_come_out_of_the_official_files(classes):
    videos, places = classes
    x = np.random.default_rng(1).standard_normal((9668, 8))
    y = np.random.default_rng(2).standard_normal((3842, 8)) + 0.7 * x[places]
    scores = score_both_ways(similarity_of_features(x, y), videos, videos.take(places))
    found = {name: value / 100 for name, value in mean_metrics(scores).items()}
    wanted = {
        "mAP_v2t": 0.06447629697, "mAP_t2v": 0.06574386163, "nDCG_v2t": 0.10992895895, "nDCG_t2v": 0.11161705978,
        "mAP": 0.06511007930, "nDCG": 0.11077300937,
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-10)
    order = np.r_[np.arange(3835), np.arange(3835, 3842)[::-1]]  # the official list's last seven have no order
    moved = score_both_ways(similarity_of_features(x, y[order]), videos, videos.take(places[order]))
    assert mean_metrics(moved) == pytest.approx({name: 100 * value for name, value in found.items()}, abs=1e-10)


@pytest.mark.slow
def test_a_random_similarity_is_at_the_published_chance_level(classes):
    videos, places = classes
    similarity = np.random.RandomState(0).rand(9668, 3842)
    found = mean_metrics(score_both_ways(similarity_of_matrix(similarity), videos, videos.take(places)))
    wanted = {
        "mAP_v2t": 5.7124, "mAP_t2v": 5.6068, "nDCG_v2t": 10.8044, "nDCG_t2v": 10.9455, "strict_mAP_v2t": 0.3974,
        "strict_mAP_t2v": 0.2844,
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=5e-5)


def test_the_small_fixture_has_the_official_codes_numbers(shared):
    arrays = np.load(shared / "data/metric_fixtures/ek100_mir_small.npz", allow_pickle=False)
    wanted = json.loads((shared / "data/metric_fixtures/expected.json").read_text())["ek100_mir_small"]["expected"]
    similarity, relevance = arrays["sim"].astype(float), arrays["relevancy"].astype(float)
    ways = {"v2t": score_queries(similarity, relevance), "t2v": score_queries(similarity.T, relevance.T)}
    found = {name: value / 100 for name, value in mean_metrics(ways).items()}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)
    assert (found["strict_mAP_v2t"], found["strict_mAP_t2v"]) == pytest.approx((0.037924, 0.044511), abs=1e-6)


def test_scores_of_a_query_equal_a_hand_calculation():
    """Ranked relevance 0.5, 1, 0, 1: graded (1.5 / 2 + 2.5 / 4) / 2, strict (1 / 2 + 2 / 4) / 2; three places count."""
    scores = score_queries(np.array([[0.1, 0.4, 0.2, 0.3]]), np.array([[1, 0.5, 0, 1]]))
    assert scores.average_precision.item() == pytest.approx((1.5 / 2 + 2.5 / 4) / 2)
    assert scores.strict_average_precision.item() == pytest.approx((1 / 2 + 2 / 4) / 2)
    gain, ideal = 0.5 + 1 / np.log2(3), 1 + 1 / np.log2(3) + 0.5 / 2
    assert scores.ndcg.item() == pytest.approx(gain / ideal)


def test_a_perfect_similarity_has_1():
    videos, texts = small(np.random.default_rng(1))
    scores = score_both_ways(similarity_of_matrix(compute_relevance(videos, texts)), videos, texts)
    found = mean_metrics(scores)
    assert set(found.values()) == {100.0}


def test_the_order_of_the_captions_does_not_change_the_means():
    rng = np.random.default_rng(2)
    videos, texts = small(rng)
    similarity = rng.standard_normal((len(videos), len(texts)))
    order = np.r_[np.arange(10), 10 + rng.permutation(7)]  # as the last seven of the official list may stand
    assert (order != np.arange(17)).any()
    plain = mean_metrics(score_both_ways(similarity_of_matrix(similarity), videos, texts))
    moved = mean_metrics(score_both_ways(similarity_of_matrix(similarity[:, order]), videos, texts.take(order)))
    assert moved == pytest.approx(plain, abs=1e-12)


def test_missing_videos_are_worse_and_never_better():
    rng = np.random.default_rng(3)
    videos, texts = small(rng)
    similarity = compute_relevance(videos, texts) + 0.1 * rng.standard_normal((len(videos), len(texts)))
    missing = np.arange(len(videos)) % 5 == 0
    ways = [
        score_both_ways(similarity_of_matrix(similarity), videos, texts, is_missing=one)
        for one in (np.zeros_like(missing), missing)
    ]
    assert (ways[1]["v2t"].average_precision[missing] == 0).all()
    np.testing.assert_array_equal(ways[1]["v2t"].ndcg[~missing], ways[0]["v2t"].ndcg[~missing])
    assert mean_metrics(ways[1])["mAP_t2v"] < mean_metrics(ways[0])["mAP_t2v"]
    none = score_both_ways(similarity_of_matrix(similarity), videos, texts, is_missing=np.ones_like(missing))
    assert set(mean_metrics(none).values()) == {0.0}


def test_a_missing_item_earns_nothing_and_is_missed():
    """Ranked 0.5, 1 (and, missing, 1): one of two positives, and the ideal gain has all three."""
    similarity, relevance = np.array([[0.3, 0.2, 0.9]]), np.array([[0.5, 1, 1]])
    scores = score_queries(similarity, relevance, is_missing=np.array([False, False, True]))
    assert scores.average_precision.item() == pytest.approx(1.5 / 2 / 2)
    assert scores.strict_average_precision.item() == pytest.approx(1 / 2 / 2)
    assert scores.ndcg.item() == pytest.approx((0.5 + 1 / np.log2(3)) / (1 + 1 / np.log2(3) + 0.5 / 2))


def test_classes_alone_tell_queries_without_a_positive():
    rng = np.random.default_rng(5)
    counts = {True: 0, False: 0}
    for _ in range(40):
        videos, texts = small(rng, 12, 8)
        texts = texts.take(np.sort(rng.choice(8, rng.integers(5, 9), replace=False)))
        positive = compute_relevance(videos, texts) == 1
        lost = next((int((~found).sum()) for found in (positive.any(1), positive.any(0)) if not found.all()), 0)
        counts[bool(lost)] += 1
        if lost:
            with pytest.raises(UserError, match=f"queries without a positive: got {lost} of "):
                require_query_positives(videos, texts)
        else:
            require_query_positives(videos, texts)
    assert min(counts.values()) > 0


def test_a_query_without_a_positive_is_refused():
    with pytest.raises(UserError, match="queries without a positive: got 1 of 2"):
        score_queries(np.zeros((2, 2)), np.array([[1, 0], [0.5, 0.5]]))
    with pytest.raises(UserError, match="noun classes: got item 0 with"):
        ActionClasses.of([0], [[7]], num_nouns=6)
