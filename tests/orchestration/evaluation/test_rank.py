"""Ranks from tasks over blocks equal those of one process, whatever is missing and whichever the protocol."""

import numpy as np
import pytest
import ray

from mama_ray.evaluation.protocol import BenchmarkConfig
from mama_ray.evaluation.retrieval import compute_ranks
from mama_ray.orchestration.evaluation import rank
from mama_ray.orchestration.evaluation.rank import Features, queries_of, rank_both_ways, top_clips

NUM_CLIPS = 29


def make_features(errors: dict[int, str]) -> tuple[Features, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    text_codes = np.repeat(np.arange(NUM_CLIPS), 1 + np.arange(NUM_CLIPS) % 3)
    videos = rng.standard_normal((NUM_CLIPS, 8)).astype(np.float32)
    texts = videos[text_codes] + rng.standard_normal((len(text_codes), 8)).astype(np.float32)
    videos, texts = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (videos, texts))
    return Features(ray.put(videos), ray.put(texts), np.arange(NUM_CLIPS), text_codes, errors), videos, texts


@pytest.mark.ray
@pytest.mark.parametrize("group_rule", ["best_rank", "group_max"])
@pytest.mark.parametrize("dual_softmax", [False, True])
@pytest.mark.parametrize("missing", ["excluded", "counted_wrong"])
def test_tasks_give_the_ranks_of_one_process(ray_cluster, monkeypatch, group_rule, dual_softmax, missing):
    monkeypatch.setattr(rank, "_TASK_QUERIES", 10)
    features, videos, texts = make_features({4: "broken", 28: "broken"})
    benchmark = BenchmarkConfig(dataset="x", caption_mode="multi", video_to_text=group_rule, missing=missing)
    ranks = rank_both_ways(features, benchmark, dual_softmax=dual_softmax)
    queries = queries_of(features, benchmark)
    assert {way: len(found) for way, found in ranks.items()} == {way: len(rows) for way, rows in queries.items()}

    known = np.setdiff1d(np.arange(NUM_CLIPS), [4, 28])
    asked = np.isin(features.text_codes, known)
    competing = asked if missing == "excluded" else np.ones_like(asked)
    t2v = compute_ranks(texts[asked], features.text_codes[asked], videos[known], known, dual_softmax=dual_softmax)
    # Sorted as numbers in the job and as strings here: only the names of the codes differ.
    v2t = compute_ranks(
        videos[known], known, texts[competing], features.text_codes[competing],
        dual_softmax=dual_softmax, group_rule=group_rule,
    )  # fmt: skip
    for way, expected in (("t2v", t2v), ("v2t", v2t)):
        is_known = np.isin(queries[way], known)
        np.testing.assert_array_equal(ranks[way][is_known], expected)
    if missing == "counted_wrong":
        last = NUM_CLIPS if group_rule == "group_max" else len(texts)
        assert set(ranks["t2v"][np.isin(queries["t2v"], [4, 28])]) == {NUM_CLIPS}
        assert set(ranks["v2t"][[4, 28]]) == {last}


@pytest.mark.ray
def test_the_first_clips_are_the_most_similar_ones(ray_cluster):
    features, videos, texts = make_features({7: "broken"})
    found = top_clips(features, np.array([0, 11]), 3)
    for position, rows in zip((0, 11), found, strict=True):
        similarity = videos @ texts[position]
        similarity[7] = -np.inf
        assert rows.tolist() == np.argsort(-similarity)[:3].tolist()


@pytest.mark.ray
def test_clips_that_are_not_there_rank_behind_all_others(ray_cluster):
    features, _, texts = make_features({7: "broken"})
    ranks = rank_both_ways(features, BenchmarkConfig(dataset="x"), dual_softmax=False, num_absent={"t2v": 5, "v2t": 3})
    whole = rank_both_ways(features, BenchmarkConfig(dataset="x"), dual_softmax=False)
    for way, num_absent, last in (("t2v", 5, NUM_CLIPS + 3), ("v2t", 3, len(texts) + 5)):
        found = len(whole[way])
        is_known = queries_of(features, BenchmarkConfig(dataset="x"))[way] != 7
        np.testing.assert_array_equal(ranks[way][:found][is_known], whole[way][is_known])
        assert set(ranks[way][:found][~is_known]) | set(ranks[way][found:]) == {last}
        assert len(ranks[way]) == found + num_absent
