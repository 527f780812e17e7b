"""Recall by topic adds up to the whole, and head and tail part the topics by frequency."""

import numpy as np

from mama_ray.evaluation.topics import head_tail_results, split_head_tail, topic_results

COUNTS = {"red": 50, "blue": 30, "green": 15, "grey": 5}


def test_head_holds_at_least_half_of_training():
    assert split_head_tail(COUNTS) == (["red"], ["blue", "green", "grey"])
    assert split_head_tail(COUNTS | {"red": 40}) == (["red", "blue"], ["green", "grey"])


def test_topics_are_ordered_by_frequency_and_add_up():
    rng = np.random.default_rng(0)
    ranks = {"t2v": rng.integers(1, 20, 40).astype(float), "v2t": rng.integers(1, 20, 40).astype(float)}
    topics = {way: rng.choice(list(COUNTS), 40).tolist() for way in ranks}
    results = topic_results(ranks, topics, COUNTS)
    assert [result.topic for result in results] == ["red", "blue", "green", "grey"]
    assert sum(result.num_videos for result in results) == 40
    weighted = sum(result.metrics["v2t_R@5"] * result.num_videos for result in results) / 40
    assert np.isclose(weighted, 100 * np.mean(ranks["v2t"] <= 5))


def test_a_side_without_queries_is_none():
    ranks, topics = {"t2v": np.ones(3)}, {"t2v": ["red"] * 3}
    head, tail = head_tail_results(ranks, topics, COUNTS)
    assert head.metrics["t2v_R@1"] == 100
    assert tail is None


def test_clips_without_topic_are_left_out():
    results = topic_results({"v2t": np.array([1.0, 9.0])}, {"v2t": ["red", None]}, COUNTS)
    assert [(result.topic, result.num_videos) for result in results] == [("red", 1)]
