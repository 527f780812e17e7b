"""Each flag on what it is for, none on good captions."""

import pytest

from mama_ray.captioning.quality import FLAGS, QualityConfig, caption_flags, caption_key

GOOD = (
    "A large red circle moves to the left.",
    "the video shows a woman who is slicing tomatoes",
    "the dog and the cat and the bird and the horse drink",
    "Two people can't open the café's door.",
    "very, very, very slowly",
    "In the clip, a boy scores 3 goals.",
)


@pytest.mark.parametrize("text", GOOD)
def test_good_captions_have_no_flag(text):
    assert caption_flags(text, QualityConfig()) == ()


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("", "empty"),
        (" ... \n", "empty"),
        ("word " * 20 + "and one", "repetitive"),
        ("a man is a man is a man is a man is a man", "repetitive"),
        (" ".join(f"w{number}" for number in range(41)), "too_long"),
        ("I'm sorry, but I cannot see the video.", "refusal"),
        ("As an AI language model, here is a dog.", "refusal"),
        ("The video shows.", "boilerplate"),
        ("This clip captures dogs", "boilerplate"),
        ("собака бежит по дороге", "wrong_script"),
        ("一只狗在路上跑 dog", "wrong_script"),
    ],
)
def test_each_fault_has_its_flag(text, flag):
    assert flag in caption_flags(text, QualityConfig())


@pytest.mark.parametrize(
    ("facts", "flag"),
    [
        ({"finish_reason": "length"}, "cut_off"),
        ({"num_copies": 21}, "duplicate"),
        ({"similarity": -0.1}, "dissimilar"),
    ],
)
def test_facts_beside_the_text_have_flags(facts, flag):
    assert caption_flags(GOOD[0], QualityConfig(), **facts) == (flag,)


def test_lines_are_drawn_where_the_config_says():
    assert caption_flags("a dog runs far", QualityConfig(max_words=3)) == ("too_long",)
    assert caption_flags("собака бежит", QualityConfig(script="CYRILLIC")) == ()
    assert caption_flags(GOOD[0], QualityConfig(min_similarity=0.3), similarity=0.2) == ("dissimilar",)
    assert caption_flags(GOOD[0], QualityConfig(max_copies=1), num_copies=2) == ("duplicate",)


def test_flags_come_in_their_order():
    found = caption_flags("sorry " * 60, QualityConfig(), finish_reason="length")
    assert list(found) == sorted(found, key=FLAGS.index)
    assert {"cut_off", "too_long", "repetitive"} <= set(found)


def test_near_duplicates_share_a_key():
    keys = {caption_key(text) for text in ("The video shows a red dog.", "a Red dog", "the red, dog")}
    assert keys == {"red dog"}
    assert caption_key("a red cat") != caption_key("a red dog")
