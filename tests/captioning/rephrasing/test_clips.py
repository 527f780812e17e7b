"""From captions to rows: a place for each paraphrase that is wanted, and a reason wherever there is none."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mama_ray.captioning.engines.protocol import GeneratedText
from mama_ray.captioning.rephrasing.clips import (
    COUNTS,
    ClipTexts,
    count_rows,
    error_rows,
    rephrase_clips,
    text_sha256,
)
from mama_ray.captioning.rephrasing.settings import DecodingConfig, WordingConfig
from mama_ray.captioning.rephrasing.wording import text_key

BEAMS = DecodingConfig(num_kept=2, num_beams=4, num_groups=4)
SAMPLING = DecodingConfig(method="sampling", num_kept=2, num_samples=4)
KEEPING = WordingConfig(remove_punctuation=False)


class Echo:
    """Says a caption in ways that are told beforehand, and notes with which seeds it was asked."""

    def __init__(self, *ways: str, refuses: str = "\0") -> None:
        self.busy_s = self.idle_s = 0.0
        self.num_tokens = 0
        self._ways, self._refuses = ways, refuses
        self.asked: dict[str, int] = {}

    def rephrase(self, texts: Sequence[str], seeds: Sequence[int]) -> list[list[GeneratedText] | str]:
        self.asked |= dict(zip(texts, seeds, strict=True))
        return [
            "too long: 200 tokens"
            if self._refuses in text
            else [GeneratedText(way.format(text), 3, "stop", -0.5) for way in self._ways]
            for text in texts
        ]


def rows_of(engine: Echo, *texts: str, decoding: DecodingConfig = BEAMS, clip_id: str = "clip") -> list[dict]:
    return rephrase_clips([ClipTexts(clip_id, texts)], engine, decoding, KEEPING)[0]


def test_each_caption_has_its_places_in_order_and_names_what_it_was_made_from():
    rows = rows_of(Echo("{0}!", "then {0}", "so {0}", "also {0}"), "a dog runs", "rain falls")
    assert [(row["sample"], row["caption"], row["error"]) for row in rows] == [
        (0, "then a dog runs", None),
        (1, "so a dog runs", None),
        (2, "then rain falls", None),
        (3, "so rain falls", None),
    ]
    assert [row["shown_sha256"] for row in rows] == [
        text_sha256(text) for text in ("a dog runs",) * 2 + ("rain falls",) * 2
    ]
    assert [row["num_equal"] for row in rows] == [1, 0, 1, 0] and {row["seed"] for row in rows} == {None}


def test_places_without_a_paraphrase_say_why():
    rows = rows_of(Echo("{0}!", "then {0}", "THEN {0}", ""), "a dog runs")
    assert [row["caption"] for row in rows] == ["then a dog runs", None]
    wanted = "too few different paraphrases: of 4 candidates 1 equal a human caption, 1 repeat another, 1 say nothing"
    assert [row["error"] for row in rows] == [None, wanted]


def test_captions_that_cannot_be_asked_for_are_rows_with_a_reason():
    engine = Echo("then {0}", "so {0}", refuses="novel")
    rows = rows_of(engine, "a dog runs", "?!", "A dog runs.", "a novel")
    reasons = [
        None, None, "the caption has no words", "the caption has no words",
        "the caption repeats an earlier one of its clip", "the caption repeats an earlier one of its clip",
        "too long: 200 tokens", "too long: 200 tokens",
    ]  # fmt: skip
    assert [row["error"] for row in rows] == reasons and [row["sample"] for row in rows] == list(range(8))
    assert engine.asked.keys() == {"a dog runs", "a novel"}
    assert [row["error"] for row in rows_of(Echo())] == ["the clip has no human caption"]


def test_paraphrases_differ_from_every_caption_of_the_clip_and_from_each_others():
    rows = rows_of(Echo("rain falls", "water falls", "it pours", "it rains"), "a shower", "Rain falls.")
    assert [row["caption"] for row in rows] == ["water falls", "it pours", "it rains", None]


def test_a_seed_is_of_clip_caption_and_sample_alone():
    ways = ("{0}.", "then {0}", "{0}", "so {0}")
    alone, beside = Echo(*ways), Echo(*ways)
    rows = rows_of(alone, "a", "b", decoding=SAMPLING)
    clips = [ClipTexts("other", ("a", "c")), ClipTexts("clip", ("a", "b")), ClipTexts("third", ())]
    assert rephrase_clips(clips, beside, SAMPLING, KEEPING)[1] == rows
    # The candidates that were kept are the second and the fourth.
    assert [row["seed"] - alone.asked["a" if row["sample"] < 2 else "b"] for row in rows] == [1, 3, 1, 3]
    seeds = [*seeds_of("clip", ways), *seeds_of("other", ways)]
    assert len({*seeds}) == len(seeds) == 4


def seeds_of(clip_id: str, ways: tuple[str, ...]) -> list[int]:
    engine = Echo(*ways)
    rows_of(engine, "a", "b", decoding=SAMPLING, clip_id=clip_id)
    return list(engine.asked.values())


def test_a_clip_whose_engine_died_has_all_its_rows():
    rows = error_rows(ClipTexts("clip", ("a dog runs", "...")), BEAMS, "the engine died")
    assert [row["error"] for row in rows] == ["the engine died"] * 2 + ["the caption has no words"] * 2


@given(
    st.lists(st.text("ab!? \ud800\u732b", max_size=4), max_size=4),
    st.lists(st.sampled_from(["{0}", "{0}!", "c {0}", "d", "a", "", "b {0} c"]), max_size=5),
    st.integers(1, 3),
)
def test_whatever_the_captions_and_the_model_every_place_is_there_once(texts, ways, num_kept):
    decoding = DecodingConfig(num_kept=num_kept, num_beams=4, num_groups=1)
    rows = rows_of(Echo(*ways), *texts, decoding=decoding)
    assert [row["sample"] for row in rows] == list(range(count_rows(len(texts), num_kept)))
    assert all((row["caption"] is None) != (row["error"] is None) for row in rows)
    keys = [text_key(row["caption"]) for row in rows if row["caption"] is not None]
    assert len({*keys}) == len(keys) and not {*keys} & {text_key(text) for text in texts}
    counted = sum(row["num_looked_at"] for row in rows)
    assert counted == len(keys) + sum(row[name] for row in rows for name in COUNTS[1:])


@pytest.mark.parametrize(
    "values", [{"num_beams": 5, "num_groups": 2}, {"num_kept": 9, "num_beams": 8, "num_groups": 8}]
)
def test_what_cannot_be_decoded_is_refused(values):
    with pytest.raises(ValueError, match=r"cannot be shared out evenly|is more than the 8 candidates"):
        DecodingConfig(**values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"temperature": 0.5, "seed": 3}, "temperature, seed have no use with method beams"),
        ({"num_samples": 5}, "num_samples have no use with method beams"),
        ({"method": "sampling", "length_penalty": 2.0}, "length_penalty have no use with method sampling"),
    ],
)
def test_settings_of_the_other_method_are_refused(values, named):
    with pytest.raises(ValueError, match=named):
        DecodingConfig(**values)
