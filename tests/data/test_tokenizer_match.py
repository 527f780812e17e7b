"""A tokenizer of another model is refused with both named, and captions that a tokenizer cuts are counted and told."""

import json

import pytest

from mama_ray.data.tokenizer import END, Tokenizer
from mama_ray.data.tokenizer_match import (
    CaptionCounts,
    TextLayout,
    count_captions,
    refuse_other_tokenizer,
    refuse_other_vocabulary,
    tell_counts,
    tokenizer_beside,
)
from mama_ray.errors import UserError

CORPUS = ["a red circle moves to the left and a blue square stays", "the small green triangle rises quickly"] * 3
OTHER = ["one dog runs on the grass near a lake", "two people cook dinner in a kitchen with knives"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CORPUS, vocab_size=540, context_length=16)


def refusal(tokenizer: Tokenizer, layout: TextLayout) -> str:
    with pytest.raises(UserError) as refused:
        refuse_other_tokenizer(tokenizer, layout, name="given", model="weights")
    return str(refused.value)


def test_the_models_own_tokenizer_passes(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = tokenizer_beside(tmp_path)
    refuse_other_tokenizer(tokenizer, TextLayout(540, 16, again), name="given", model="weights")
    refuse_other_tokenizer(tokenizer, TextLayout(540, 16), name="given", model="weights")


@pytest.mark.parametrize("layout", [TextLayout(49408, 16), TextLayout(540, 77), TextLayout(539, 16)])
def test_other_sizes_are_refused_with_both(tokenizer, layout):
    message = refusal(tokenizer, layout)
    assert "got given: vocabulary 540, context 16, start token 538, end token 539" in message
    assert f"wanted weights: vocabulary {layout.vocab_size}, context {layout.context_length}" in message
    assert f"end token {layout.vocab_size - 1}" in message and "set data.tokenizer" in message


def test_other_pieces_of_the_same_sizes_are_refused(tokenizer):
    """Sizes and special tokens agree; only the words do not."""
    other = Tokenizer.train(OTHER, vocab_size=540, context_length=16)
    assert (other.vocab_size, other.start_id) == (tokenizer.vocab_size, tokenizer.start_id)
    message = refusal(tokenizer, TextLayout(540, 16, other))
    assert "pieces or merges of them others" in message and "leave data.tokenizer out" in message


def test_another_order_of_merges_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"].reverse()
    path.write_text(json.dumps(content))
    assert "merges" in refusal(tokenizer, TextLayout(540, 16, tokenizer_beside(tmp_path)))


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    assert tokenizer_beside(tmp_path) is None


def test_captions_are_counted_as_the_tokenizer_cuts_them(tokenizer):
    texts = ["a red circle", " ".join(CORPUS[:2]), "a", " ".join(CORPUS)]
    counts = count_captions(tokenizer, texts)
    whole = Tokenizer(tokenizer._backend, context_length=200)
    lengths = [int(row.argmax()) + 1 for row in whole(texts)]
    assert counts == CaptionCounts(4, sum(length > 16 for length in lengths), 0, 16, max(lengths))
    assert counts.num_cut == 2


def test_special_tokens_inside_a_caption_are_counted_as_unknown(tokenizer):
    counts = count_captions(tokenizer, [f"a red {END} circle", "a red circle", "", "日本語 é"])
    assert (counts.num_captions, counts.num_unknown) == (4, 1)


def test_pieces_that_a_vocabulary_lacks_are_counted_as_unknown(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    vocab["nothing-that-is-written"] = vocab.pop("Ã")  # the first byte of é
    path.write_text(json.dumps(content))
    assert count_captions(Tokenizer.from_directory(tmp_path), ["a café noir", "a red circle"]).num_unknown == 1


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (
            CaptionCounts(100, 37, 0, 24, 60),
            ["37 % of captions are longer than 24 tokens and lose their end ("],
        ),
        (CaptionCounts(1000, 4, 0, 24, 30), ["0.4 % of captions are longer than 24 tokens"]),
        (CaptionCounts(50000, 2, 3, 24, 30), ["2 of 50,000 captions are longer", "3 of 50,000 captions hold pieces"]),
        (CaptionCounts(10, 0, 0, 24, 20), []),
        (CaptionCounts(0, 0, 0, 24, 0), []),
    ],
)
def test_what_is_told_names_share_and_limit(counts, told):
    found = tell_counts(counts, remedy="raise data.context_length")
    assert len(found) == len(told)
    assert all(sentence.startswith(start) for sentence, start in zip(found, told, strict=True))
    assert all("raise data.context_length" in sentence for sentence in found if "longer than" in sentence)


def test_a_model_of_another_vocabulary_is_refused_where_it_is_used(tokenizer):
    refuse_other_vocabulary(tokenizer, 540, model="run/checkpoint")
    with pytest.raises(UserError, match=r"got 540, wanted 49408 as run/checkpoint has"):
        refuse_other_vocabulary(tokenizer, 49408, model="run/checkpoint")


def test_another_cut_of_long_texts_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"long_texts": "lavila"}))
    own = tokenizer_beside(tmp_path)
    refuse_other_tokenizer(own, TextLayout(540, 16, own), name="given", model="weights")
    assert "long_texts keep_end" in refusal(tokenizer, TextLayout(540, 16, own))
