"""Which clip shows which facts: unique and balanced where it is tested, imbalanced in training."""

import math
from collections import Counter

import numpy as np
import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.facts import facts_of, topic_ranks, topic_shares
from mama_ray.data.synthetic.vocabulary import TOPICS, count_distinct_facts

LEVELS = ("simple", "full")


def all_facts(config: CorpusConfig, split: str) -> list:
    return [facts_of(config, split, number) for number in range(config.num_clips[split])]


@pytest.mark.parametrize("level", LEVELS)
def test_no_two_clips_of_val_and_test_show_the_same_facts(level):
    config = CorpusConfig(level=level, num_val=320, num_test=704)
    facts = all_facts(config, "val") + all_facts(config, "test")
    assert len(set(facts)) == 1024


def test_val_and_test_can_use_up_every_fact_of_level_simple():
    assert count_distinct_facts("simple") == 1024
    config = CorpusConfig(num_val=8, num_test=1016)
    assert len(set(all_facts(config, "val") + all_facts(config, "test"))) == 1024


@pytest.mark.parametrize(("num_val", "num_test"), [(9, 1016), (4, 1020)])
def test_more_clips_than_distinct_facts_are_refused(num_val, num_test):
    with pytest.raises(ValueError, match="distinct"):
        CorpusConfig(num_val=num_val, num_test=num_test)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["meta", "val", "test"])
def test_every_topic_is_as_frequent_as_any_other_outside_of_training(level, split):
    config = CorpusConfig(level=level, num_meta=64, num_val=128, num_test=256)
    counts = Counter(facts[0].shape for facts in all_facts(config, split))
    assert set(counts) == set(TOPICS)
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize("level", LEVELS)
def test_a_small_meta_set_repeats_no_facts(level):
    config = CorpusConfig(level=level, num_meta=128)
    assert len(set(all_facts(config, "meta"))) == 128


@pytest.mark.parametrize("split", ["meta", "val", "test"])
def test_each_balanced_pair_of_level_full_has_a_twin_with_the_order_reversed(split):
    config = CorpusConfig(level="full", num_meta=64, num_val=128, num_test=256)
    facts = set(all_facts(config, split))
    assert all(pair[::-1] in facts for pair in facts)


@pytest.mark.parametrize("split", ["train", "meta", "val", "test"])
def test_two_objects_of_a_clip_differ_in_shape_and_colour(split):
    config = CorpusConfig(level="full", num_train=300, num_meta=64, num_val=128, num_test=256)
    for first, second in all_facts(config, split):
        assert first.shape != second.shape
        assert first.colour != second.colour


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_shares_of_topics_in_training_follow_zipf(exponent):
    config = CorpusConfig(zipf_exponent=exponent, num_train=3000)
    ranks, shares = topic_ranks(config.seed), topic_shares(config.seed, exponent)
    counts = Counter(facts[0].shape for facts in all_facts(config, "train"))
    norm = sum(rank**-exponent for rank in range(1, len(TOPICS) + 1))
    for topic in TOPICS:
        expected = ranks[topic] ** -exponent / norm
        assert shares[topic] == pytest.approx(expected)
        # Five standard deviations of a binomial count.
        assert abs(counts[topic] - 3000 * expected) < 5 * math.sqrt(3000 * expected * (1 - expected))


def test_a_rare_topic_is_rare_as_second_object_too():
    config = CorpusConfig(level="full", zipf_exponent=2.0, num_train=2000)
    ranks = topic_ranks(config.seed)
    counts = Counter(thing.shape for facts in all_facts(config, "train") for thing in facts)
    rarest, commonest = max(ranks, key=ranks.get), min(ranks, key=ranks.get)
    assert counts[rarest] * 8 < counts[commonest]


def test_the_seed_changes_facts_and_the_ranks_of_topics():
    one, two = CorpusConfig(seed=1, num_test=64), CorpusConfig(seed=2, num_test=64)
    assert all_facts(one, "test") != all_facts(two, "test")
    assert topic_ranks(1) != topic_ranks(2)
    assert sorted(topic_ranks(1).values()) == list(range(1, len(TOPICS) + 1))


@pytest.mark.parametrize("level", LEVELS)
def test_test_clips_stay_the_same_when_the_other_splits_grow(level):
    small = CorpusConfig(level=level, num_train=10, num_val=8, num_meta=8, num_test=48)
    large = CorpusConfig(level=level, num_train=99, num_val=99, num_meta=99, num_test=99)
    assert all_facts(large, "test")[:48] == all_facts(small, "test")


def test_every_value_of_every_fact_is_about_as_frequent_in_the_test_split():
    facts = [thing for facts in all_facts(CorpusConfig(num_test=512), "test") for thing in facts]
    for name, num_values in (("colour", 8), ("size", 2), ("motion", 8)):
        counts = Counter(getattr(thing, name) for thing in facts)
        assert len(counts) == num_values
        assert np.ptp(list(counts.values())) < 0.6 * 512 / num_values


def test_rates_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="wanted at most 1"):
        CorpusConfig(incomplete_rate=0.5, wrong_rate=0.4, swapped_rate=0.2)
