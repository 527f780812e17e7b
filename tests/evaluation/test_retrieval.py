"""Ranks against official outputs, a double loop, and properties that hold for any features."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mama_ray.errors import UserError
from mama_ray.evaluation import retrieval
from mama_ray.evaluation.retrieval import compute_ranks, recall_metrics, retrieval_metrics

FIXTURE = Path(__file__).resolve().parents[2] / "../shared/data/metric_fixtures/retrieval_1k.npz"
# Rows are texts, as in CLIP4Clip: 1,000 pairs, and its worked example of ties.
TIED = np.array([[1, 0.5, 0.5], [0.2, 0.2, 0.2], [0.9, 0.1, 0.3]])


def ids_of(count: int) -> list[str]:
    return [f"video{number}" for number in range(count)]


def ranks_of_matrix(similarity: np.ndarray, **options) -> np.ndarray:
    """Rank the columns of each row; identity features on one side reproduce a given matrix."""
    rows, columns = similarity.shape
    return compute_ranks(similarity, ids_of(rows), np.eye(columns), ids_of(columns), **options)


def naive_ranks(
    queries, query_ids, gallery, gallery_ids, *, ties="average", dual_softmax=False, group_rule="best_rank"
):
    """The definition as loops over every pair; scores are told apart by 24 bits, as the module's docstring says."""

    def similarity(one, other):
        return float(np.float32(sum(float(a) * float(b) for a, b in zip(one, other, strict=True))))

    def rounded(value):
        mantissa, exponent = math.frexp(value)
        return math.ldexp(float(np.float32(mantissa)), exponent)

    score = [[similarity(query, item) for item in gallery] for query in queries]
    if dual_softmax:
        sums = [sum(np.exp(100 * row[k]) for row in score) for k in range(len(gallery))]
        score = [[rounded(s * np.exp(100 * s) / sums[k]) for k, s in enumerate(row)] for row in score]
    ranks = []
    for row, query_id in zip(score, query_ids, strict=True):
        best = max(s for s, item_id in zip(row, gallery_ids, strict=True) if item_id == query_id)
        rivals = [(s, item_id) for s, item_id in zip(row, gallery_ids, strict=True) if item_id != query_id]
        if group_rule == "group_max":
            rivals = [(max(s for s, i in rivals if i == name), name) for name in sorted({i for _, i in rivals})]
        above = sum(s > best for s, _ in rivals)
        equal = sum(s == best for s, _ in rivals)
        ranks.append(1 + above + {"average": 0.5, "optimistic": 0, "pessimistic": 1}[ties] * equal)
    return np.array(ranks, dtype=float)


@pytest.fixture(scope="module")
def official_similarity() -> np.ndarray:
    if not FIXTURE.exists():
        pytest.skip(f"no golden similarity matrix: {FIXTURE} is absent")
    with np.load(FIXTURE, allow_pickle=False) as file:
        return file["sim"]


@pytest.mark.parametrize(
    ("dual_softmax", "t2v", "v2t"),
    [
        (False, (14.4, 34.2, 44.5, 14, 56.618), (15.8, 34.3, 45.2, 14, 56.578)),
        (True, (15.0, 33.4, 43.8, 15, 60.681), (14.6, 32.1, 44.1, 15, 60.484)),
    ],
)
def test_thousand_pairs_give_the_official_numbers(official_similarity, dual_softmax, t2v, v2t):
    for similarity, expected in ((official_similarity, t2v), (official_similarity.T, v2t)):
        metrics = recall_metrics(ranks_of_matrix(similarity, dual_softmax=dual_softmax))
        assert tuple(metrics.values()) == pytest.approx(expected, abs=1e-9)


def test_dsl_v2t_uses_its_own_axis(official_similarity):
    own_axis = ranks_of_matrix(official_similarity.T, dual_softmax=True)
    # The release ranks v2t by its t2v matrix transposed: a softmax over the gallery of each query, not over queries.
    matrix = official_similarity.astype(np.float64)
    t2v_scores = matrix * np.exp(100 * matrix) / np.exp(100 * matrix).sum(axis=0)
    reused = recall_metrics(1.0 + (np.diag(t2v_scores)[:, None] < t2v_scores.T).sum(axis=1))
    assert [reused["R@1"], reused["R@5"], reused["R@10"]] == pytest.approx([15.8, 34.3, 45.2])
    assert recall_metrics(own_axis)["R@1"] == pytest.approx(14.6)


def test_dual_softmax_transposed_leaves_positive_similarities_as_they_were():
    similarity = np.random.default_rng(0).uniform(0.01, 1, (30, 30))
    reused = similarity * np.exp(100 * similarity) / np.exp(100 * similarity).sum(axis=1, keepdims=True)
    assert (ranks_of_matrix(reused) == ranks_of_matrix(similarity)).all()


@pytest.mark.parametrize(
    ("ties", "ranks"), [("optimistic", [1, 1, 2]), ("average", [1, 2, 2]), ("pessimistic", [1, 3, 2])]
)
def test_ties_follow_the_named_rule(ties, ranks):
    assert ranks_of_matrix(TIED, ties=ties).tolist() == ranks


def test_clip4clip_counts_every_tied_position_and_we_do_not():
    positions = np.where(-np.sort(-TIED, axis=1) == np.diag(TIED)[:, None])[1]
    assert positions.tolist() == [0, 0, 1, 2, 1]
    assert 100 * np.mean(positions < 1) == 40
    assert recall_metrics(ranks_of_matrix(TIED))["R@1"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(("ties", "rank"), [("optimistic", 1), ("average", 6), ("pessimistic", 11)])
@pytest.mark.parametrize("dual_softmax", [False, True])
def test_a_constant_model_gets_chance_level(ties, rank, dual_softmax):
    features = np.ones((11, 8), dtype=np.float32) / np.sqrt(8)
    ranks = compute_ranks(features, ids_of(11), features, ids_of(11), ties=ties, dual_softmax=dual_softmax)
    assert (ranks == rank).all()


def test_equal_items_tie_whatever_their_place(monkeypatch):
    monkeypatch.setattr(retrieval, "GALLERY_BLOCK", 7)
    rng = np.random.default_rng(3)
    item = rng.standard_normal(384).astype(np.float32)
    gallery = np.tile(item / np.linalg.norm(item), (40, 1))
    queries = rng.standard_normal((40, 384)).astype(np.float32)
    for dual_softmax in (False, True):
        ranks = compute_ranks(queries / 20, ids_of(40), gallery, ids_of(40), dual_softmax=dual_softmax)
        assert (ranks == 20.5).all()


@settings(max_examples=40, deadline=None)
# Two scores of this seed differ by 6.5e-8 of their size: one unit of the last of 24 bits.
@example(seed=1, videos=7, texts_per_video=1, ties="average", dual_softmax=True, rule="best_rank", block=1)
@given(
    seed=st.integers(0, 2**31),
    videos=st.integers(1, 9),
    texts_per_video=st.integers(1, 3),
    ties=st.sampled_from(["average", "optimistic", "pessimistic"]),
    dual_softmax=st.booleans(),
    rule=st.sampled_from(["best_rank", "group_max"]),
    block=st.integers(1, 5),
)
def test_blocks_equal_the_double_loop(seed, videos, texts_per_video, ties, dual_softmax, rule, block):
    rng = np.random.default_rng(seed)
    video_features = rng.integers(-2, 3, (videos, 3)) / 4  # few distinct values, hence many ties
    text_features = rng.integers(-2, 3, (videos * texts_per_video, 3)) / 4
    text_ids = [ids_of(videos)[number % videos] for number in rng.permutation(len(text_features))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "QUERY_BLOCK", block)
        patch.setattr(retrieval, "GALLERY_BLOCK", block + 1)
        for args in (
            (text_features, text_ids, video_features, ids_of(videos)),
            (video_features, ids_of(videos), text_features, text_ids),
        ):
            options = {"ties": ties, "dual_softmax": dual_softmax, "group_rule": rule}
            np.testing.assert_array_equal(compute_ranks(*args, **options), naive_ranks(*args, **options))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 12))
def test_order_of_items_does_not_matter(seed, count):
    rng = np.random.default_rng(seed)
    video_features, text_features = rng.standard_normal((2, count, 5))
    one, other = rng.permutation(count), rng.permutation(count)
    names = np.array(ids_of(count))
    straight = retrieval_metrics(video_features, text_features, names, names)
    shuffled = retrieval_metrics(video_features[one], text_features[other], names[one], names[other])
    assert shuffled == straight


def test_positives_come_from_ids_not_strings():
    # Two videos share one caption, hence one text feature: each text still has one positive, and they tie.
    caption = np.array([1.0, 0.0])
    ranks = compute_ranks(np.stack([caption, caption]), ["a", "b"], np.array([[1.0, 0.0], [0.6, 0.8]]), ["a", "b"])
    assert ranks.tolist() == [1, 2]


def test_ranks_and_recall_share_positives():
    # The query's first positive is last, its second is first: recall and mean rank both speak of the second.
    query, gallery = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    ranks = compute_ranks(query, ["a"], gallery, ["a", "b", "a"])
    assert recall_metrics(ranks) == {"R@1": 100, "R@5": 100, "R@10": 100, "median_rank": 1, "mean_rank": 1}


def test_group_max_counts_groups_and_best_rank_counts_captions():
    video = np.array([[1.0, 0.0]])
    texts = np.array([[0.5, 0], [0.9, 0], [0.8, 0], [0.7, 0], [0.1, 0]])
    text_ids = ["a", "b", "b", "b", "c"]
    assert compute_ranks(video, ["a"], texts, text_ids, group_rule="best_rank").tolist() == [4]
    assert compute_ranks(video, ["a"], texts, text_ids, group_rule="group_max").tolist() == [2]


def test_keys_name_their_direction():
    # Text 1 is nearest to video 0, so t2v errs for it while both videos find their text first.
    videos, texts = np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([[1.0, 0.0], [0.95, 0.3122499]])
    metrics = retrieval_metrics(videos, texts, ["a", "b"], ["a", "b"], prefix="val/")
    assert (metrics["val/t2v_R@1"], metrics["val/v2t_R@1"]) == (50, 100)


@pytest.mark.parametrize("dual_softmax", [False, True])
def test_swapping_the_sides_swaps_the_directions(dual_softmax):
    videos, texts = np.random.default_rng(0).standard_normal((2, 40, 6)) / 10
    straight = retrieval_metrics(videos, texts, ids_of(40), ids_of(40), dual_softmax=dual_softmax)
    swapped = retrieval_metrics(texts, videos, ids_of(40), ids_of(40), dual_softmax=dual_softmax)
    other = {"t2v": "v2t", "v2t": "t2v"}
    assert swapped == {other[key[:3]] + key[3:]: value for key, value in straight.items()}
    assert straight["t2v_mean_rank"] != straight["v2t_mean_rank"]


def test_features_that_are_not_finite_are_named():
    features = np.eye(3)
    features[1, 2] = np.nan
    with pytest.raises(UserError, match="video1"):
        compute_ranks(np.eye(3), ids_of(3), features, ids_of(3))


def test_a_query_without_positive_is_named():
    with pytest.raises(UserError, match="stranger"):
        compute_ranks(np.eye(2), ["video0", "stranger"], np.eye(2), ids_of(2))


def test_no_queries_is_an_error_not_a_nan():
    with pytest.raises(UserError, match="no queries"):
        recall_metrics(np.empty(0))
