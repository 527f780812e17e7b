"""Invented results of a study, with the shapes of real ones: round numbers that no training run would give."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from mama_ray.experiments.study.results import CurvePoint, ExperimentResults, StudyRun, TuningTrial

SEEDS = (0, 1, 2, 3, 4)
GAINS = {
    "uniform": 0.0, "pretrained": -20.0, "focal": -2.0, "self_paced": 1.5, "joint": -4.0, "learned": 4.0, "mama": 5.5,
    "oracle": 8.0, "oracle_margin": 8.5, "uniform_margin": 1.0, "uniform_captions": 2.0, "mama_captions": 6.5,
    "mama_captions_ungated": 5.0, "learned_captions": 5.5,
}  # fmt: skip
NETTED = ("joint", "learned", "learned_relative", "mama", "mama_captions", "mama_captions_ungated", "learned_captions")
TOPICS = ("cats", "dogs", "boats", "trains", "cooking", "football")


def make_run(method: str, seed: int, value: float, x: float | str | None = None, **fields) -> StudyRun:
    """Return a run whose one point has this test R@1."""
    metrics = {"t2v_R@1": value, "v2t_R@1": value - 1}
    point = CurvePoint(step=10, epoch=1.0, val=metrics, test=metrics)
    return StudyRun(method=method, x=x, seed=seed, cell="0" * 12, **({"selected": 0, "curve": (point,)} | fields))


def make_experiment(name: str, runs: Iterable[StudyRun], **fields) -> ExperimentResults:
    """Return an experiment of these runs, its methods in their order."""
    runs = tuple(runs)
    defaults = dict(
        title=f"Invented {name}", question=f"What does {name} do?", setting={"clips": 400.0, "model": "tiny"},
        methods=tuple(dict.fromkeys(run.method for run in runs)), commit="0123456789abcdef",
        command=f"python jobs/study.py {name}", date="2001-02-03",
    )  # fmt: skip
    return ExperimentResults(name=name, runs=runs, **(defaults | fields))


def make_full_run(method: str, seed: int, gain: float, x: float | str | None = None, shift: float = 0.0) -> StudyRun:
    """Return a run with every optional field: a curve of 6 points, topics, weights and, for a net, a weight curve."""
    rng = np.random.default_rng([seed, len(method), int(10 * gain + 1000)])
    level = 30 + 3 * seed + gain + rng.normal(0, 0.8)
    points = []
    for number in range(1 if method == "pretrained" else 6):
        noise = max(0, number - 3) * (0.2 if "oracle" in method else 2.0 - gain / 6)
        value = max(0.5, level * (1 - math.exp(-1.2 * (number + 1))) - noise)
        metrics = {"t2v_R@1": value, "v2t_R@1": 0.96 * value}
        loss = None if number == 0 else 3.0 / number
        points.append(CurvePoint(step=40 * number, epoch=4.0 * number, val=metrics, test=metrics, train_loss=loss))
    selected = max(range(len(points)), key=lambda number: points[number].val["t2v_R@1"])
    order = np.random.default_rng(seed).permutation(len(TOPICS))
    share = {TOPICS[topic]: 100 * 0.5 ** (rank + 1) / (1 - 0.5**6) for rank, topic in enumerate(order)}
    recall = {TOPICS[t]: level - 2 * r + 0.25 * gain * r + rng.normal() for r, t in enumerate(order)}
    fields = {}
    if method in NETTED:
        losses = np.linspace(0.1 * seed, 6 + 0.3 * seed, 24)
        weights = 0.8 * np.exp(-(((losses - 1.5) / (3 + shift)) ** 2)) if method != "joint" else losses / 10 + 0.2
        fields["weight_curve"] = tuple(zip(losses.tolist(), weights.tolist(), strict=True))
        fields["effective_sample_size"] = 0.02 if method == "joint" else 0.7
        fields["meta_loss_ratio"] = 0.98
        fields["weights"] = {"clean": 1.2, "incomplete": 1.0, "wrong": 0.3, "swapped": 0.4}
    cost = 2.2 if method in NETTED else 1.0
    return StudyRun(
        method=method, x=x, seed=seed, cell="0" * 12, selected=selected, curve=tuple(points), topic_recall=recall,
        topic_share=share, step_s=0.05 * cost, **fields,
    )  # fmt: skip


def make_factor_experiment(
    name: str, values: Sequence[float | str], methods: Sequence[str], seeds: Sequence[int] = SEEDS, factor: str = "x"
) -> ExperimentResults:
    """Return an experiment whose gains grow with the place of the factor's value."""
    runs = [
        make_full_run(method, seed, GAINS.get(method, 3.0) * (0.2 + 0.3 * place) - place, x, shift=place)
        for place, x in enumerate(values)
        for method in methods
        for seed in seeds
    ]
    return make_experiment(name, runs, factor=factor)


def make_study(seeds: Sequence[int] = SEEDS) -> dict[str, ExperimentResults]:
    """Return one experiment of every kind."""
    trials = [
        TuningTrial(method=method, key=key, value=value, seed=seed, val=30 + value * 10 + seed, chosen=value == 0.2)
        for method, key in (("uniform", "optim.lr"), ("learned", "weighting.inner_lr"))
        for value in (0.1, 0.2, 0.4)
        for seed in (100, 101)
    ]
    runs = [make_full_run(method, seed, gain) for method, gain in GAINS.items() for seed in seeds]
    found = [make_experiment("methods", runs, tuning=tuple(trials))]
    both, four = ("uniform", "learned"), ("uniform", "learned", "mama", "oracle")
    rates = (0.001, 0.01, 0.1, 1.0, 10.0)
    found.append(make_factor_experiment("inner_lr", rates, ("learned",), seeds, "inner learning rate"))
    found.append(make_factor_experiment("learned_relative", (0.001, 0.01, 0.03), ("learned_relative",), seeds))
    for name in ("margin", "margin_incomplete", "margin_wrong", "margin_scratch"):
        values = (0.0, 0.05, 0.1, 0.2)
        found.append(make_factor_experiment(name, values, ("uniform", "learned", "oracle"), seeds, "margin (radians)"))
    for name in ("incomplete", "wrong", "swapped"):
        found.append(make_factor_experiment(name, (0.0, 0.2, 0.4, 0.6), four, seeds, f"share of {name} captions"))
    found.append(make_factor_experiment("zipf", (0.0, 0.5, 1.0, 1.5), four, seeds, "Zipf exponent"))
    found.append(make_factor_experiment("meta_size", (16.0, 32.0, 64.0, 128.0, 256.0, 512.0), ("learned",), seeds))
    degraded = ("clean", "25 % wrong", "50 % wrong", "imbalanced")
    found.append(make_factor_experiment("meta_degraded", degraded, both, seeds, "meta-set"))
    found.append(make_factor_experiment("captions", ("none", "generated", "gated"), ("uniform", "mama"), seeds))
    found.append(make_factor_experiment("grid", ("none", "1 frame", "2 x 2"), ("uniform",), seeds, "key-frame grid"))
    return {experiment.name: experiment for experiment in found}
