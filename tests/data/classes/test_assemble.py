"""Batches with classes: of each clip, of its text, and texts of like clips in the place of its own."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import chisquare

from mama_ray.data.batch import TARGET_PREFIX
from mama_ray.data.classes.assemble import ClassAssembler, Sentences
from mama_ray.data.classes.names import CLASS, OF_TEXT, OF_VIDEO
from mama_ray.data.classes.table import ClassTable
from mama_ray.data.index import CAPTIONS_TYPE
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError

SETS = {
    "a": {"verb": (0,), "noun": (0, 1), "action": (0,)},
    "b": {"verb": (0,), "noun": (2,), "action": (1,)},
    "c": {"verb": (1,), "noun": (1,), "action": (2,)},
    "d": {"verb": (2,), "noun": (3,), "action": (3,)},
}
TABLE = ClassTable(SETS, {"verb": 3, "noun": 4, "action": 4})
TEXTS = {"a": "take plate and cup", "b": "take knife", "c": "wash cup", "d": "open door"}


def clips() -> pa.Table:
    captions = [[{"text": text, "source": "human"}] for text in TEXTS.values()]
    bare = pa.table({"clip_id": list(TEXTS), "captions": pa.array(captions, CAPTIONS_TYPE)})
    return TABLE.add_to(bare, "here")


class Bare:
    """Gives rows and the ids of their own texts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def assemble(self, rows, epochs=None):
        texts = [list(TEXTS.values())[int(row)] for row in rows]
        frames = np.arange(len(rows) * 2 * 3 * 4 * 3, dtype=np.uint8).reshape(len(rows), 2, 3, 4, 3)
        return {"rows": np.asarray(rows), "token_ids": self.tokenizer(texts), "frames": frames}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(list(TEXTS.values()), vocab_size=514, context_length=16)


def assembler(tokenizer: Tokenizer, above: float | None = None) -> ClassAssembler:
    sentences = None if above is None else Sentences(clips(), TABLE.sizes)
    return ClassAssembler(Bare(tokenizer), clips(), TABLE.sizes, tokenizer, sentences, above or 0.0)


def test_a_clip_is_paired_with_its_own_text_and_has_the_classes_of_its_file(tokenizer):
    found = assembler(tokenizer).assemble([3, 0], [0, 0])
    assert found[TARGET_PREFIX + OF_VIDEO + "noun"].tolist() == [[0, 0, 0, 1], [1, 1, 0, 0]]
    for kind in ("verb", "noun"):
        assert np.array_equal(found[TARGET_PREFIX + OF_VIDEO + kind], found[TARGET_PREFIX + OF_TEXT + kind])
    assert found[TARGET_PREFIX + CLASS + "action"].tolist() == [3, 0]
    assert TARGET_PREFIX + OF_VIDEO + "action" not in found, "an action is a verb and a noun at once"


def test_texts_are_drawn_evenly_of_those_that_are_relevant_enough(tokenizer):
    """To a: its own 1, b 1/2 (verb), c 1/4 (one noun of two), d 0."""
    number = 300
    found = assembler(tokenizer, above=0.1).assemble([0] * number, range(number))
    ids = {name: tokenizer([text])[0].tolist() for name, text in TEXTS.items()}
    drawn = [next(name for name, own in ids.items() if own == row) for row in found["token_ids"].tolist()]
    names, counts = np.unique(drawn, return_counts=True)
    assert names.tolist() == ["a", "b", "c"] and chisquare(counts).pvalue > 0.01
    wanted = [SETS[name]["verb"] for name in drawn]
    assert [tuple(np.flatnonzero(row)) for row in found[TARGET_PREFIX + OF_TEXT + "verb"]] == wanted
    assert (found[TARGET_PREFIX + OF_VIDEO + "verb"] == [1, 0, 0]).all()
    assert np.array_equal(assembler(tokenizer, above=0.3).sentences.relevant_to((b"\1\0\0", b"\1\1\0\0"), 0.3), [0, 1])


def test_a_draw_is_a_function_of_epoch_and_clip_and_evaluation_draws_none(tokenizer):
    own = assembler(tokenizer, above=0.1)
    whole = own.assemble([0, 1, 2], [7, 7, 8])["token_ids"]
    assert np.array_equal(own.assemble([1, 2], [7, 8])["token_ids"], whole[1:])
    assert np.array_equal(own.assemble([0, 2])["token_ids"], tokenizer([TEXTS["a"], TEXTS["c"]]))


def test_a_clip_that_no_text_is_relevant_to_is_named(tokenizer):
    others = Sentences(clips().slice(3), TABLE.sizes)
    own = ClassAssembler(Bare(tokenizer), clips(), TABLE.sizes, tokenizer, others, 0.1)
    with pytest.raises(UserError, match="no text is relevant to a clip.*clip a"):
        own.assemble([0], [0])


def test_a_share_of_the_clips_is_mirrored_in_training_alone(tokenizer):
    plain = assembler(tokenizer)
    own, rows, epochs = replace(plain, flip=0.5), [0, 1, 2, 3] * 25, np.arange(100)
    shown, seen = own.assemble(rows, epochs)["frames"], plain.assemble(rows, epochs)["frames"]
    is_mirrored = np.array([np.array_equal(one, other[:, :, ::-1]) for one, other in zip(shown, seen, strict=True)])
    assert all(np.array_equal(one, other) for one, other in zip(shown[~is_mirrored], seen[~is_mirrored], strict=True))
    assert 30 < is_mirrored.sum() < 70
    assert np.array_equal(own.assemble(rows)["frames"], seen)
