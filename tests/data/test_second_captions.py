"""A generated caption of each clip beside its own text: which clips have one, and what is drawn apart."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.data.assemble import draw_caption
from mama_ray.data.batch import GENERATED_IDS, TARGET_PREFIX, pad_batch, to_clip_batch
from mama_ray.data.classes.names import HAS_GENERATED
from mama_ray.data.second_captions import SecondCaptions
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.sampling import row_rng

CAPTIONS = [
    [("a red ball", "human"), ("the ball rolls", "generated"), ("it rolls", "generated")],
    [("a dog runs", "human"), ("a dog is there", "rephrased")],
    [("told by a model", "generated")],
    [("by speech", "asr"), ("a cat sleeps", "generated"), ("a sleepy cat", "human")],
]
TABLE = pa.table({"captions": [[{"text": text, "source": source} for text, source in own] for own in CAPTIONS]})
TEXTS = [text for own in CAPTIONS for text, _ in own]


@dataclass(frozen=True)
class Drawn:
    """Draws clips' own texts as the assemblers of clips do."""

    tokenizer: Tokenizer

    def assemble(self, rows, epochs=None):
        texts = []
        for place, row in enumerate(rows):
            rng = None if epochs is None else row_rng(0, int(epochs[place]), int(row))
            captions = TABLE["captions"].to_pylist()[row]
            texts.append(draw_caption(captions, rng, joins=False, probabilities=None, apart=True)["text"])
        ids, valid = self.tokenizer(texts), np.ones(len(rows), bool)
        frames = np.zeros((len(rows), 1, 2, 2, 3), np.uint8)
        return {"frames": frames, "token_ids": ids, "rows": np.asarray(rows), "valid": valid}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, vocab_size=600, context_length=16)


def texts_of(tokenizer, ids) -> list[str]:
    known = {tuple(row): text for row, text in zip(tokenizer(TEXTS).tolist(), TEXTS, strict=True)}
    return [known[tuple(row)] for row in ids.tolist()]


def test_own_texts_and_generated_ones_are_drawn_apart(tokenizer):
    assembler = SecondCaptions(Drawn(tokenizer), TABLE, tokenizer)
    own, generated = [set() for _ in CAPTIONS], [set() for _ in CAPTIONS]
    for epoch in range(20):
        arrays = assembler.assemble([0, 1, 2, 3], [epoch] * 4)
        assert arrays[TARGET_PREFIX + HAS_GENERATED].tolist() == [True, False, False, True]
        for found, name in ((own, "token_ids"), (generated, GENERATED_IDS)):
            for texts, text in zip(found, texts_of(tokenizer, arrays[name]), strict=True):
                texts.add(text)
        again = assembler.assemble([3, 0], [epoch] * 2)
        assert (again[GENERATED_IDS] == arrays[GENERATED_IDS][[3, 0]]).all()
    assert own == [{"a red ball"}, {"a dog runs", "a dog is there"}, {"told by a model"}, {"by speech", "a sleepy cat"}]
    assert generated == [{"the ball rolls", "it rolls"}, own[1], own[2], {"a cat sleeps"}]
    alone = assembler.assemble([1], [4])  # a clip without one has its own text twice
    assert (alone[GENERATED_IDS] == alone["token_ids"]).all()


def test_evaluation_and_the_meta_set_have_one_text(tokenizer):
    arrays = SecondCaptions(Drawn(tokenizer), TABLE, tokenizer).assemble([0, 3])
    assert GENERATED_IDS not in arrays and texts_of(tokenizer, arrays["token_ids"]) == ["a red ball", "by speech"]


def test_batches_keep_generated_captions_when_they_are_padded_and_cut(tokenizer):
    arrays = SecondCaptions(Drawn(tokenizer), TABLE, tokenizer).assemble([0, 1, 3], [0, 0, 0])
    batch = to_clip_batch(pad_batch(arrays, 4))
    assert batch.targets[HAS_GENERATED].tolist() == [True, False, True, False]
    assert batch.generated_ids.shape == batch.token_ids.shape
    assert (batch[1:3].generated_ids.numpy() == arrays[GENERATED_IDS][1:]).all()
    empty = SecondCaptions(Drawn(tokenizer), TABLE, tokenizer).assemble(np.empty(0, int), np.empty(0, int))
    assert empty[GENERATED_IDS].shape == (0, 16) and empty[TARGET_PREFIX + HAS_GENERATED].dtype == bool
