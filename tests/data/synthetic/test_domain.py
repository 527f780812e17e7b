"""The source domain: a part of the topics, words and backgrounds, to learn from before the rest is met."""

import numpy as np
import pytest

from mama_ray.data.synthetic.config import CorpusConfig, corpus_hash
from mama_ray.data.synthetic.facts import facts_of, stream_rng, topic_shares
from mama_ray.data.synthetic.generate import describe_clip, generate_clip
from mama_ray.data.synthetic.read_back import read_thing
from mama_ray.data.synthetic.scene import draw_scene
from mama_ray.data.synthetic.vocabulary import SOURCE_TOPICS, TOPICS
from mama_ray.data.synthetic.words import COLOUR_WORDS, MOTION_WORDS, SHAPE_WORDS, SIZE_WORDS

CLEAN = {"incomplete_rate": 0.0, "wrong_rate": 0.0, "swapped_rate": 0.0}
SOURCE = CorpusConfig(domain="source", **CLEAN)
EVERYTHING = CorpusConfig(**CLEAN)


def scenes(config: CorpusConfig, count: int = 60):
    for number in range(count):
        rng = stream_rng(config.seed, "scene", "train", number)
        yield draw_scene(facts_of(config, "train", number), config.level, config.num_frames, rng, domain=config.domain)


@pytest.mark.parametrize("level", ["simple", "full"])
def test_training_clips_of_the_source_show_its_topics_alone(level):
    source = SOURCE.model_copy(update={"level": level})
    shown = {thing.shape for number in range(200) for thing in facts_of(source, "train", number)}
    assert shown == set(SOURCE_TOPICS)
    everything = EVERYTHING.model_copy(update={"level": level})
    assert {thing.shape for number in range(200) for thing in facts_of(everything, "train", number)} == set(TOPICS)


@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_shares_of_the_source_keep_their_proportions_and_sum_to_one(exponent):
    part, whole = topic_shares(3, exponent, "source"), topic_shares(3, exponent)
    assert sum(part.values()) == pytest.approx(1.0)
    known = np.array([[part[topic], whole[topic]] for topic in SOURCE_TOPICS])
    np.testing.assert_allclose(known[:, 0] / known[:, 1], known[0, 0] / known[0, 1])
    assert all(part[topic] == 0.0 for topic in TOPICS if topic not in SOURCE_TOPICS)


def test_captions_of_the_source_have_plain_words_that_tell_the_facts():
    synonyms = [
        word for words in (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS) for ways in words.values() for word in ways[1:]
    ]
    synonyms += [form for ways in MOTION_WORDS.values() for forms in ways[1:] for form in forms]
    forms = set()
    for number in range(100):
        text = describe_clip(SOURCE, "train", number).captions[0].text
        assert (read_thing(text),) == facts_of(SOURCE, "train", number)
        assert not [word for word in synonyms if f" {word} " in f" {text} "]
        forms.add((text.startswith("there is"), " is " in text))
    assert len(forms) > 1
    told = " ".join(describe_clip(EVERYTHING, "train", number).captions[0].text for number in range(100))
    assert [word for word in synonyms if word in told]


def test_scenes_of_the_source_are_calm_and_evenly_lit():
    assert {scene.background for scene in scenes(SOURCE)} == {"plain", "gradient"}
    assert {scene.brightness for scene in scenes(SOURCE)} == {1.0}
    assert len({scene.background for scene in scenes(EVERYTHING)}) == 5


def test_clips_of_the_domains_never_share_a_name_or_a_folder():
    assert describe_clip(SOURCE, "val", 0).clip_id != describe_clip(EVERYTHING, "val", 0).clip_id
    assert corpus_hash(SOURCE) != corpus_hash(EVERYTHING)


def test_the_whole_domain_is_what_it_was_before_there_was_another():
    # The hash of the default corpus and the words of its first clip, as of generator version 2 without domains.
    assert corpus_hash(CorpusConfig()).startswith("3c19032a6cba92ae")
    assert describe_clip(CorpusConfig(), "train", 0).captions[0].text == "we see a little snowy circle that moves down"
    assert len(generate_clip(CorpusConfig(), "test", 0).video) > 0
