"""Narrations of the corpus: who tells of which clip, what is true of it, and that plain corpora stay what they were."""

import json
from collections import Counter

import pytest

from mama_ray.config import decisive_values
from mama_ray.data.synthetic.config import CorpusConfig, corpus_hash
from mama_ray.data.synthetic.generate import describe_clip, generate_clip
from mama_ray.data.synthetic.read_back import read_thing
from mama_ray.data.synthetic.recognise import is_generators
from tests.data.synthetic.reading import read_facts

CLEAN = {"incomplete_rate": 0.0, "wrong_rate": 0.0, "swapped_rate": 0.0}


def corpus(**options) -> CorpusConfig:
    return CorpusConfig.model_validate({"texts": "first_person", "num_train": 600, **CLEAN, **options})


def describe_all(config: CorpusConfig, split: str = "train") -> list:
    return [describe_clip(config, split, number) for number in range(config.num_clips[split])]


def test_a_clip_has_human_and_rephrased_narrations_or_generated_ones_alone():
    clips = describe_all(corpus(human_rate=0.25, num_captions=2, num_rephrased=3, num_generated=4))
    sources = Counter(tuple(caption.source for caption in clip.captions) for clip in clips)
    assert sources.keys() == {("human",) * 2 + ("rephrased",) * 3, ("generated",) * 4}
    # Of 600 draws at a quarter: 150, and five standard deviations are 53.
    assert sources[("human",) * 2 + ("rephrased",) * 3] == pytest.approx(150, abs=53)
    assert all(caption.text.startswith("#C C ") for clip in clips for caption in clip.captions)


@pytest.mark.parametrize("level", ["simple", "full"])
@pytest.mark.parametrize("split", ["meta", "val", "test"])
def test_other_splits_are_told_by_people_and_right(level, split):
    for clip in describe_all(corpus(level=level, num_meta=64, num_val=64, num_test=64), split):
        assert [caption.source for caption in clip.captions] == ["human"]
        assert clip.truth["kinds"] == ["clean"]
        assert read_facts(clip.captions[0].text) == clip.truth["facts"]["objects"], clip.captions[0].text


@pytest.mark.parametrize("level", ["simple", "full"])
def test_human_and_rephrased_narrations_say_the_same_in_other_words(level):
    clips = describe_all(corpus(level=level, human_rate=1.0, num_train=300))
    others = 0
    for clip in clips:
        human, rephrased = clip.captions
        assert read_facts(human.text) == read_facts(rephrased.text) == clip.truth["facts"]["objects"], clip.captions
        others += human.text != rephrased.text
    assert others > 250


def test_generated_narrations_have_one_false_fact_at_the_stated_rate_and_say_which_do():
    clips = describe_all(corpus(human_rate=0.01, generated_wrong_rate=0.3))
    clips = [clip for clip in clips if clip.captions[0].source == "generated"]
    kinds = Counter()
    for clip in clips:
        (shown,) = clip.truth["facts"]["objects"]
        for caption, kind in zip(clip.captions, clip.truth["kinds"], strict=True):
            said = vars(read_thing(caption.text))
            assert sum(said[name] != value for name, value in shown.items()) == (kind == "wrong"), caption
            kinds[kind] += 1
        assert clip.truth["kind"] == clip.truth["kinds"][0]
    # Of 1,188 draws or so at 0.3, five standard deviations are 0.067.
    assert kinds["wrong"] / kinds.total() == pytest.approx(0.3, abs=0.067)
    assert Counter(sum(kind == "wrong" for kind in clip.truth["kinds"]) for clip in clips).keys() == {0, 1, 2}


def test_human_narrations_are_spoiled_as_captions_are_and_generated_ones_are_not():
    clips = describe_all(corpus(swapped_rate=1.0, human_rate=0.5, generated_wrong_rate=0.0))
    kinds = {clip.captions[0].source: set() for clip in clips}
    for clip in clips:
        kinds[clip.captions[0].source].add(clip.truth["kind"])
    assert kinds == {"human": {"swapped"}, "generated": {"clean"}}


def test_the_clips_show_what_those_of_a_plain_corpus_show_under_other_names():
    plain, narrated = CorpusConfig(), CorpusConfig(texts="first_person")
    for split in ("train", "test"):
        one, other = generate_clip(plain, split, 3), generate_clip(narrated, split, 3)
        assert one.video == other.video and one.clip.clip_id != other.clip.clip_id
        assert is_generators(json.dumps(other.clip.truth)) and other.clip.truth["facts"] == one.clip.truth["facts"]


def test_a_plain_corpus_is_named_as_before_its_later_fields_came():
    assert corpus_hash(CorpusConfig()) == "3c19032a6cba92ae7d907181a09be59f5d1f9c7bc78f5cdc1b8f0d5a6ad6fff5"
    assert (
        corpus_hash(CorpusConfig(level="full", num_train=7, domain="source"))
        == "e7a19432b25caf07eb8d0da8c021d72c9bbd80f61732612291dfc46f8bd960cf"
    )
    assert decisive_values(CorpusConfig()).keys().isdisjoint({"texts", "label_rate", "misread_rate"})
    assert corpus_hash(corpus()) != corpus_hash(corpus(human_rate=0.3))
