"""Recall by topic, and by head and tail of the topics' training frequency.

Head: the most frequent topics that together hold at least half of the training clips; tail: all others. On a test
split that is balanced over topics, head against tail shows what imbalance in training costs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from mama_ray.evaluation.protocol import TopicResult
from mama_ray.evaluation.retrieval import recall_metrics

HEAD_SHARE = 0.5


def split_head_tail(train_counts: Mapping[str, int], head_share: float = HEAD_SHARE) -> tuple[list[str], list[str]]:
    """Return (head, tail), each most frequent first; equal counts go by name."""
    ordered = sorted(train_counts, key=lambda topic: (-train_counts[topic], topic))
    total, running = sum(train_counts.values()), 0
    head = []
    for topic in ordered:
        if running >= head_share * total:
            break
        head.append(topic)
        running += train_counts[topic]
    return head, ordered[len(head) :]


def topic_results(
    ranks: Mapping[str, Float64[np.ndarray, " queries"]],
    query_topics: Mapping[str, Sequence[str | None]],
    train_counts: Mapping[str, int],
) -> tuple[TopicResult, ...]:
    """Return one result per topic that has a query, most frequent in training first.

    ranks and query_topics are keyed by direction, t2v and v2t; queries without a topic are left out.
    """
    found = {topic for topics in query_topics.values() for topic in topics if topic is not None}
    ordered = sorted(found, key=lambda topic: (-train_counts.get(topic, 0), topic))
    return tuple(group_result(topic, [topic], ranks, query_topics, train_counts) for topic in ordered)


def head_tail_results(
    ranks: Mapping[str, Float64[np.ndarray, " queries"]],
    query_topics: Mapping[str, Sequence[str | None]],
    train_counts: Mapping[str, int],
) -> tuple[TopicResult | None, TopicResult | None]:
    """Return the results of head and tail; None for a side that has no query, as with a single topic."""
    found = {topic for topics in query_topics.values() for topic in topics if topic is not None}
    counts = {topic: train_counts.get(topic, 0) for topic in found | set(train_counts)}
    sides = []
    for name, topics in zip(("head", "tail"), split_head_tail(counts), strict=True):
        has_queries = any(topic in found for topic in topics)
        sides.append(group_result(name, topics, ranks, query_topics, train_counts) if has_queries else None)
    return sides[0], sides[1]


def group_result(
    name: str,
    topics: Sequence[str],
    ranks: Mapping[str, Float64[np.ndarray, " queries"]],
    query_topics: Mapping[str, Sequence[str | None]],
    train_counts: Mapping[str, int],
) -> TopicResult:
    """Return recall over all queries of the topics (not a mean of topics)."""
    metrics, num_videos, members = {}, 0, set(topics)
    for way, way_ranks in ranks.items():
        chosen = np.array([topic in members for topic in query_topics[way]], dtype=bool)
        if chosen.any():
            metrics |= {f"{way}_{key}": value for key, value in recall_metrics(way_ranks[chosen]).items()}
        if way == "v2t":
            num_videos = int(chosen.sum())
    num_train = sum(train_counts.get(topic, 0) for topic in topics)
    return TopicResult(topic=name, num_train=num_train, num_videos=num_videos, metrics=metrics)
