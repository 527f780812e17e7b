"""Captions of the corpus: every fact can be read back, and no word means two things."""

import itertools

import pytest

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import describe_clip
from mama_ray.data.synthetic.vocabulary import facts_to_dict
from mama_ray.data.synthetic.words import ANY_MOTION_WORDS, COLOUR_WORDS, MOTION_WORDS, SHAPE_WORDS, SIZE_WORDS
from tests.data.synthetic.reading import read_facts


def describe_all(config: CorpusConfig, split: str) -> list:
    return [describe_clip(config, split, number) for number in range(config.num_clips[split])]


@pytest.mark.parametrize("level", ["simple", "full"])
@pytest.mark.parametrize("split", ["meta", "val", "test"])
def test_a_clean_caption_states_exactly_the_facts_in_their_order(level, split):
    for clip in describe_all(CorpusConfig(level=level, num_meta=64, num_val=128, num_test=256), split):
        assert clip.truth["kind"] == "clean"
        assert clip.truth["clean_caption"] == clip.captions[0].text
        assert read_facts(clip.captions[0].text) == clip.truth["facts"]["objects"], clip.captions[0].text


@pytest.mark.parametrize("level", ["simple", "full"])
def test_no_two_clips_of_val_and_test_have_the_same_caption(level):
    config = CorpusConfig(level=level, num_val=320, num_test=704)
    texts = [clip.captions[0].text for split in ("val", "test") for clip in describe_all(config, split)]
    assert len(set(texts)) == 1024


def test_no_word_stands_for_two_facts():
    finite = {motion: [pair[0] for pair in pairs] for motion, pairs in MOTION_WORDS.items()}
    words = [
        word for table in (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS, finite) for value in table.values() for word in value
    ]
    words += [pair[0] for pair in ANY_MOTION_WORDS]
    assert len(words) == len(set(words))
    assert not {"shape", "object", "thing"} & set(words)


def test_several_captions_of_a_clip_tell_the_same_facts_in_other_words():
    config = CorpusConfig(num_captions=4, incomplete_rate=0, wrong_rate=0, swapped_rate=0)
    clips = [describe_clip(config, "train", number) for number in range(40)]
    assert all(len(clip.captions) == 4 for clip in clips)
    assert all(
        read_facts(caption.text) == clip.truth["facts"]["objects"] for clip in clips for caption in clip.captions
    )
    assert sum(len({caption.text for caption in clip.captions}) > 1 for clip in clips) > 30
    assert len(describe_clip(config, "test", 0).captions) == 1


def test_every_synonym_is_used():
    config = CorpusConfig(num_train=1500, incomplete_rate=0, wrong_rate=0, swapped_rate=0, zipf_exponent=0)
    text = " | ".join(clip.captions[0].text for clip in describe_all(config, "train"))
    for table in (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS):
        assert all(word in text for words in table.values() for word in words)
    assert all(form in text for pairs in MOTION_WORDS.values() for pair in pairs for form in pair)


def test_the_article_fits_the_word_after_it():
    config = CorpusConfig(num_train=600, incomplete_rate=1, wrong_rate=0, swapped_rate=0)
    text = " ".join(clip.captions[0].text for clip in describe_all(config, "train")).split()
    followed = list(itertools.pairwise(text))
    assert all((after[0] in "aeiou") == (article == "an") for article, after in followed if article in ("a", "an"))
    assert "an" in text


def test_facts_as_json_leave_out_what_is_absent():
    clip = describe_clip(CorpusConfig(), "test", 0)
    assert set(clip.truth["facts"]["objects"][0]) == {"shape", "colour", "size", "motion"}
    assert facts_to_dict(()) == {"objects": []}
