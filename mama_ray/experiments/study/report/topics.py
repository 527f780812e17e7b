"""Gains by topic; which topic is rare differs from seed to seed, so topics of several seeds meet by frequency rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from mama_ray.experiments.study.results import StudyRun
from mama_ray.reporting.intervals import Interval, mean_interval


@dataclass(frozen=True)
class TopicRank:
    """The topics of one frequency rank, 1 the most frequent: mean share, the baseline's recall, the gain in points."""

    rank: int
    share: float
    baseline: Interval
    gain: Interval


def topic_gains(run: StudyRun, other: StudyRun) -> list[tuple[float, float, float]]:
    """Return (share in percent, the other's recall, gain in points) of the topics that both know, frequent first."""
    shared = [topic for topic in run.topic_share if topic in run.topic_recall and topic in other.topic_recall]
    found = [
        (run.topic_share[topic], other.topic_recall[topic], run.topic_recall[topic] - other.topic_recall[topic])
        for topic in sorted(shared)
    ]
    return sorted((row for row in found if np.isfinite(row).all()), key=lambda row: -row[0])


def gains_by_seed(runs: Sequence[StudyRun], others: Sequence[StudyRun]) -> dict[int, list[tuple[float, float, float]]]:
    """Return `topic_gains` by seed, for the seeds that both have topics of."""
    by_seed = {other.seed: other for other in others}
    found = {run.seed: topic_gains(run, by_seed[run.seed]) for run in runs if run.seed in by_seed}
    return {seed: rows for seed, rows in found.items() if rows}


def join_ranks(gains: Mapping[int, Sequence[tuple[float, float, float]]]) -> list[TopicRank]:
    """Return each rank's mean over the seeds that have it."""
    ranks = []
    for rank in range(max((len(rows) for rows in gains.values()), default=0)):
        rows = [found[rank] for found in gains.values() if len(found) > rank]
        shares, baselines, gained = zip(*rows, strict=True)
        ranks.append(TopicRank(rank + 1, float(np.mean(shares)), mean_interval(baselines), mean_interval(gained)))
    return ranks


def rarity_slopes(gains: Mapping[int, Sequence[tuple[float, float, float]]]) -> dict[int, float]:
    """Return, by seed, the least-squares slope of gain against rarity: points more per topic ten times as rare."""
    slopes = {}
    for seed, rows in gains.items():
        shares = np.array([row[0] for row in rows])
        rows_used = shares > 0
        if len(np.unique(shares[rows_used])) > 1:
            gained = np.array([row[2] for row in rows])[rows_used]
            slopes[seed] = float(-np.polyfit(np.log10(shares[rows_used]), gained, 1)[0])
    return slopes


def rarity_correlations(gains: Mapping[int, Sequence[tuple[float, float, float]]]) -> dict[int, float]:
    """Return, by seed, Spearman's rank correlation of gain with rarity: 1 if every rarer topic gains more."""
    correlations = {}
    for seed, rows in gains.items():
        shares, gained = (np.array([row[column] for row in rows]) for column in (0, 2))
        if len(np.unique(shares)) > 1 and len(np.unique(gained)) > 1:
            correlations[seed] = float(np.corrcoef(rankdata(-shares), rankdata(gained))[0, 1])
    return correlations
