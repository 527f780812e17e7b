"""What captioners write in place of a caption is told from captions, and no ordinary caption is blamed."""

import csv
from pathlib import Path

import pytest

from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.captioning.quality import QualityConfig, caption_flags
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import describe_clip
from tests.captioning.phrase_examples import (
    ANSWERS,
    EASTERN_FAULTS,
    GRID,
    MARKUP,
    NOTHING,
    ORDINARY,
    ORDINARY_EASTERN,
    REFUSALS,
)

CLIPS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "clips.csv"
ENGLISH, EASTERN = QualityConfig(), QualityConfig(script="CJK")


def flags_of(text: str, config: QualityConfig) -> tuple[str, ...]:
    """Return the flags of what a model wrote, as the job finds them: after post-processing."""
    return caption_flags(postprocess(text, PostprocessConfig()), config)


@pytest.mark.parametrize(
    ("flag", "texts"),
    [("grid", GRID), ("refusal", REFUSALS), ("empty", NOTHING), ("markup", MARKUP), ("boilerplate", ANSWERS)],
)
def test_what_is_no_caption_is_flagged(flag, texts):
    missed = [text for text in texts if flag not in flags_of(text, ENGLISH)]
    assert not missed


@pytest.mark.parametrize("flag", EASTERN_FAULTS)
def test_what_is_no_caption_in_chinese_and_japanese_is_flagged(flag):
    missed = [text for text in EASTERN_FAULTS[flag] if flag not in flags_of(text, EASTERN)]
    assert not missed


def test_ordinary_captions_have_no_flag():
    blamed = {text: flags for text in ORDINARY if (flags := flags_of(text, ENGLISH))}
    blamed |= {text: flags for text in ORDINARY_EASTERN if (flags := flags_of(text, EASTERN))}
    assert not blamed


def test_captions_of_the_embedded_corpus_have_no_flag():
    for level in ("simple", "full"):
        config = CorpusConfig(level=level, num_train=300, num_meta=16, num_val=64, num_test=64)
        texts = {
            caption.text
            for split, count in config.num_clips.items()
            for number in range(count)
            for caption in describe_clip(config, split, number).captions
        }
        assert len(texts) > 250
        assert not {text: flags for text in texts if (flags := flags_of(text, ENGLISH))}


@pytest.mark.skipif(not CLIPS.is_file(), reason="../shared/data/clips.csv is not there")
def test_captions_of_real_clips_have_no_flag():
    with CLIPS.open() as stream:
        texts = [row["caption"] for row in csv.DictReader(stream)]
    assert len(texts) > 20
    assert not {text: flags for text in texts if (flags := flags_of(text, ENGLISH))}
