"""The text of an assembled clip: one of its captions, or all of them as a paragraph."""

import numpy as np
import pyarrow as pa
import pytest

from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.batch import pad_batch
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

SENTENCES = ("a red ball rolls", "a dog follows it")


@pytest.fixture
def tokenizer():
    return Tokenizer.train(SENTENCES, vocab_size=600, context_length=32)


def assembler_of(tokenizer, tmp_path, **options) -> ClipAssembler:
    """An assembler of one clip, whose shard is cut off before it."""
    (tmp_path / "none.tar").touch()
    captions = [{"text": text, "source": "human"} for text in SENTENCES]
    record = {"clip_id": "c", "shard": "none.tar", "offset": 0, "num_bytes": 1, "sha256": "", "captions": captions}
    return ClipAssembler(
        Place.of(tmp_path),
        pa.Table.from_pylist([record]),
        tokenizer,
        num_frames=1,
        transform=TransformConfig(image_size=8),
        **options,
    )


def texts_of(tokenizer, tmp_path, epochs, **options) -> set[str]:
    """The texts of one clip over these epochs; None is evaluation. Its video is lost, which leaves the text."""
    assembler = assembler_of(tokenizer, tmp_path, **options)
    known = {tuple(tokenizer([text])[0]): text for text in (*SENTENCES, " ".join(SENTENCES))}
    found = set()
    for epoch in epochs:
        batch = assembler.assemble([0], None if epoch is None else [epoch])
        assert not batch["valid"][0]
        found.add(known[tuple(np.asarray(batch["token_ids"][0]))])
    return found


def test_training_draws_one_caption_and_evaluation_takes_the_first(tokenizer, tmp_path):
    assert texts_of(tokenizer, tmp_path, range(20)) == set(SENTENCES)
    assert texts_of(tokenizer, tmp_path, [None]) == {SENTENCES[0]}


def test_a_paragraph_joins_all_captions_in_training_and_evaluation(tokenizer, tmp_path):
    assert texts_of(tokenizer, tmp_path, [0, 1, 2, None], joins_captions=True) == {" ".join(SENTENCES)}


def test_a_shard_that_is_gone_is_no_fact_about_its_clips(tokenizer, tmp_path):
    assembler = assembler_of(tokenizer, tmp_path)
    (tmp_path / "none.tar").unlink()
    with pytest.raises(UserError, match=f"missing: got {tmp_path}/none.tar"):
        assembler.assemble([0], [0])


def test_a_worker_that_has_no_clip_of_a_step_reads_nothing_and_gets_padding(tokenizer, tmp_path, caplog):
    nothing = assembler_of(tokenizer, tmp_path).assemble(np.empty(0, np.int64), np.empty(0, np.int64))
    one = assembler_of(tokenizer, tmp_path).assemble([0], [0])
    assert len(caplog.records) == 1  # of the clip that is lost
    padded = pad_batch(nothing, 1)
    assert {name: (values.shape, values.dtype) for name, values in padded.items()} == {
        name: (values.shape, values.dtype) for name, values in one.items()
    }
