"""Rules without a meta-set: which clips they keep, and that they know whose losses they see."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mama_ray.data.batch import ClipBatch
from mama_ray.experiments.study.cell import RuleConfig
from mama_ray.experiments.study.rules import KeepLowest, Mixture, Rule, clean_probability, inverse_frequency
from mama_ray.experiments.study.symmetric import SymmetricObjective
from mama_ray.objectives.objective import Features
from mama_ray.training.loop import StepRecord


def step(number: int, rows, losses) -> StepRecord:
    rows, losses = torch.tensor(rows), torch.tensor(losses)
    return StepRecord(number, rows, losses, torch.ones_like(losses), {}, None, torch.ones(len(rows), dtype=torch.bool))


def batch_of(rows) -> ClipBatch:
    count = len(rows)
    frames, tokens = torch.zeros(count, 1, 2, 2, 3, dtype=torch.uint8), torch.zeros(count, 2, dtype=torch.long)
    return ClipBatch(frames, tokens, torch.tensor(rows), torch.ones(count, dtype=torch.bool))


def test_the_lowest_losses_of_a_batch_are_kept_all_along():
    losses = torch.tensor([3.0, 0.5, 2.0, 1.0, 9.0])
    assert KeepLowest(0.6)(losses).tolist() == [0, 1, 1, 1, 0]
    assert KeepLowest(1.0)(losses).tolist() == [1] * 5
    assert KeepLowest(0.01)(losses).tolist() == [0, 1, 0, 0, 0]


def test_a_rule_weighs_the_clips_of_the_batch_that_comes_next():
    rule = Rule(np.array([1.0, 2.0, 3.0]))
    found = [rule(torch.zeros(2)).tolist() for _ in rule.announce([batch_of([2, 0]), batch_of([1, 1])])]
    assert found == [[3.0, 1.0], [2.0, 2.0]]


def test_a_mixture_tells_two_heaps_of_losses_apart_as_the_true_densities_do():
    rng = np.random.default_rng(0)
    heaps = ((0.7, 1.0, 0.3), (0.3, 4.0, 0.6))
    losses = np.concatenate([rng.normal(mean, spread, round(1000 * share)) for share, mean, spread in heaps])
    found = clean_probability(losses)
    low, high = (share * np.exp(-((losses - mean) ** 2) / (2 * s**2)) / s for share, mean, s in heaps)
    np.testing.assert_allclose(found, low / (low + high), atol=0.12)
    assert np.mean((found >= 0.5) == (np.arange(1000) < 700)) > 0.99
    np.testing.assert_array_equal(clean_probability(np.full(5, 2.0)), 1.0)


def test_clips_count_until_the_first_fit_and_then_by_their_average():
    rule = Mixture(RuleConfig(kind="mixture", warmup_steps=2, refit_every=1, decay=0.5), 5)
    rule.rows = np.arange(4)
    rule.observe(step(0, [0, 1, 2, 3], [1.0, 1.1, 5.0, 5.1]))
    assert rule(torch.zeros(4)).tolist() == [1, 1, 1, 1]
    rule.observe(step(1, [0, 1, 2, 3], [1.0, 1.1, 5.0, 5.1]))
    assert rule(torch.zeros(4)).tolist() == [1, 1, 0, 0]
    assert rule.weights[4] == 1  # of a clip that was never met nothing is known
    for number in range(6):  # the third clip's losses are low from now on, and so is their average, by and by
        rule.observe(step(2 + number, [0, 1, 2, 3], [1.0, 1.1, 1.0, 5.1]))
    assert rule(torch.zeros(4)).tolist() == [1, 1, 1, 0]


def test_rare_topics_weigh_as_much_in_all_as_frequent_ones():
    topics = np.array(["a"] * 6 + ["b"] * 3 + ["c"])
    weights = inverse_frequency(topics)
    assert weights.mean() == pytest.approx(1.0)
    assert {round(float(weights[topics == topic].sum()), 6) for topic in "abc"} == {round(10 / 3, 6)}


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_symmetric_cross_entropy_equals_a_loop(share):
    torch.manual_seed(0)
    video, text = (torch.nn.functional.normalize(torch.randn(6, 8, dtype=torch.float64), dim=1) for _ in range(2))
    scale = torch.tensor(2.0, dtype=torch.float64)
    found = SymmetricObjective(share)(Features(video, text, scale, torch.zeros(())), batch_of(list(range(6))))
    for i in range(6):
        wanted = 0.0
        for queries, gallery in ((video, text), (text, video)):
            logits = scale.exp() * gallery @ queries[i]
            p = logits.softmax(0)
            reverse = -sum(float(p[k]) * (0.0 if k == i else -4.0) for k in range(6))
            wanted += (1 - share) * float(cross_entropy(logits[None], torch.tensor([i]))) + share * reverse
        assert float(found[i]) == pytest.approx(wanted / 2)
