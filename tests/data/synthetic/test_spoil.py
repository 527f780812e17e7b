"""Spoiled captions are as many as asked for, and bad in just the way the truth says."""

import math
from collections import Counter

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import describe_clip
from tests.data.synthetic.reading import read_facts

LEVELS = ("simple", "full")
ONLY = {"incomplete_rate": 0.0, "wrong_rate": 0.0, "swapped_rate": 0.0}


def train_clips(level: str, count: int, **rates: float) -> list:
    config = CorpusConfig(level=level, num_train=count, **(ONLY | rates))
    return [describe_clip(config, "train", number) for number in range(count)]


@pytest.mark.parametrize("level", LEVELS)
def test_kinds_come_at_the_rates_asked_for(level):
    rates = {"incomplete": 0.25, "wrong": 0.15, "swapped": 0.1, "clean": 0.5}
    clips = train_clips(level, 1500, incomplete_rate=0.25, wrong_rate=0.15, swapped_rate=0.1)
    counts = Counter(clip.truth["kind"] for clip in clips)
    for kind, rate in rates.items():
        assert abs(counts[kind] - 1500 * rate) < 5 * math.sqrt(1500 * rate * (1 - rate)), kind


@pytest.mark.parametrize("level", LEVELS)
def test_only_the_training_split_is_spoiled(level):
    config = CorpusConfig(level=level, num_train=200, incomplete_rate=0.5, wrong_rate=0.3, swapped_rate=0.2)
    for split in ("meta", "val", "test"):
        assert {describe_clip(config, split, number).truth["kind"] for number in range(64)} == {"clean"}
    assert "clean" not in {describe_clip(config, "train", number).truth["kind"] for number in range(64)}


def test_an_incomplete_caption_omits_what_the_truth_names_and_says_nothing_false():
    for clip in train_clips("simple", 300, incomplete_rate=1.0):
        (fact,), (stated,) = clip.truth["facts"]["objects"], read_facts(clip.captions[0].text)
        missing = {name.removeprefix("objects.0.") for name in clip.truth["omitted"]}
        assert 1 <= len(missing) <= 3
        assert stated == {name: value for name, value in fact.items() if name not in missing}


def test_a_wrong_caption_states_exactly_one_false_fact():
    for clip in train_clips("simple", 300, wrong_rate=1.0):
        (fact,), (stated,) = clip.truth["facts"]["objects"], read_facts(clip.captions[0].text)
        assert stated.keys() == fact.keys()
        assert [f"objects.0.{name}" for name in fact if fact[name] != stated[name]] == clip.truth["wrong"]


def test_a_wrong_caption_of_two_objects_has_one_false_fact_or_the_order_reversed():
    kinds = Counter()
    for clip in train_clips("full", 300, wrong_rate=1.0):
        facts, stated = clip.truth["facts"]["objects"], read_facts(clip.captions[0].text)
        if clip.truth["wrong"] == ["order"]:
            assert stated == facts[::-1] != facts
        else:
            false = [f"objects.{n}.{name}" for n in (0, 1) for name in facts[n] if facts[n][name] != stated[n][name]]
            assert false == clip.truth["wrong"]
        assert stated[0]["shape"] != stated[1]["shape"]
        assert stated[0]["colour"] != stated[1]["colour"]
        kinds[clip.truth["wrong"][0]] += 1
    assert len(kinds) == 9


def test_an_incomplete_caption_of_two_objects_states_part_of_the_truth():
    seen = set()
    for clip in train_clips("full", 300, incomplete_rate=1.0):
        facts, stated = clip.truth["facts"]["objects"], read_facts(clip.captions[0].text)
        omitted = clip.truth["omitted"]
        if omitted == ["order"]:
            assert clip.truth["stated"]["tells_order"] is False
            assert stated in (facts, facts[::-1])
            assert not any(word in clip.captions[0].text.split() for word in ("first", "then", "before", "after"))
        elif omitted in (["objects.0"], ["objects.1"]):
            assert stated == [facts[1 - int(omitted[0][-1])]]
        else:
            kept = [{k: v for k, v in facts[n].items() if f"objects.{n}.{k}" not in omitted} for n in (0, 1)]
            assert stated == kept != facts
        seen.add("attributes" if "." in omitted[0][8:] else omitted[0])
    assert seen == {"attributes", "objects.0", "objects.1", "order"}


@pytest.mark.parametrize("level", LEVELS)
def test_a_swapped_caption_is_that_of_another_training_clip_with_other_facts(level):
    clips = train_clips(level, 300, swapped_rate=1.0)
    by_id = {clip.clip_id: clip for clip in clips}
    for clip in clips:
        other = by_id[clip.truth["swapped_with"]]
        assert other is not clip
        assert clip.captions[0].text == other.truth["clean_caption"]
        assert clip.truth["stated"] == other.truth["facts"] != clip.truth["facts"]


@pytest.mark.parametrize("level", LEVELS)
def test_stated_facts_are_those_of_the_caption_whatever_its_kind(level):
    clips = train_clips(level, 300, incomplete_rate=0.3, wrong_rate=0.3, swapped_rate=0.3)
    for clip in clips:
        stated, read = clip.truth["stated"]["objects"], read_facts(clip.captions[0].text)
        assert read == stated or (clip.truth["stated"].get("tells_order") is False and read == stated[::-1])


def test_spoiling_leaves_the_facts_and_the_clean_caption_of_a_clip_as_they_were():
    for clean, spoiled in zip(train_clips("full", 60), train_clips("full", 60, wrong_rate=1.0), strict=True):
        assert spoiled.truth["facts"] == clean.truth["facts"]
        assert spoiled.truth["clean_caption"] == clean.captions[0].text
        assert spoiled.captions[0].text != clean.captions[0].text
