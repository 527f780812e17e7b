"""BERT's tokenizer: words lower-cased and cut into word-pieces, a piece inside a word marked by `##`.

Reads a `tokenizer.json` or BERT's `vocab.txt`, gives the ids transformers' BertTokenizer gives, and trains a small one.
A text is [CLS] pieces [SEP], then [PAD]. What is spelt like a special token in a text is text: a question that holds
"[MASK]" has no second mask.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import WordPiece

from mama_ray.data.tokenizer import Tokenizer
from mama_ray.errors import UserError

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIALS = (PAD, UNKNOWN, START, END, MASK)
INSIDE_WORD = "##"
DIGITS = "0123456789"  # the answers of a multiple choice
ALWAYS_KNOWN = DIGITS + "abcdefghijklmnopqrstuvwxyz.,:?!'-"


class WordPieceTokenizer(Tokenizer):
    """Texts to token ids (batch, context_length), and back; `mask_id` is that of [MASK]."""

    start, end, pad, unknown = START, END, PAD, UNKNOWN
    class_name = "BertTokenizer"

    def _require_layout(self) -> None:
        self._backend.encode_special_tokens = True  # as text: see above
        mask_id = self._backend.token_to_id(MASK)
        if mask_id is None:
            raise UserError("the tokenizer lacks special tokens", got=[MASK], wanted=f"{MASK} as in BERT")
        self.mask_id = mask_id

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, context_length: int) -> "WordPieceTokenizer":
        """Learn pieces from `texts`. `vocab_size` is the most there will be; a small corpus may yield fewer.

        The ids are: the special tokens (pad 0), letters, letters inside a word, longer pieces in the order of their
        making. Latin letters and digits are always there; any other that no text has is unknown.
        """
        texts = list(texts)
        learned = _build_backend({}, lower_case=True)
        seen = {letter for text in texts for letter in learned.normalizer.normalize_str(text) if not letter.isspace()}
        letters = sorted(seen | set(ALWAYS_KNOWN))
        # The trainer would number letters inside a word in the order of a hash table, and merge by these numbers
        # where counts tie: named first, all of them have their place.
        first = [*SPECIALS, *letters, *(INSIDE_WORD + letter for letter in letters)]
        if vocab_size < len(first):
            wanted = f"at least {len(first)}: the special tokens, and each letter of the texts at both places"
            raise UserError("vocab_size of the tokenizer", got=vocab_size, wanted=wanted)
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=first,
            continuing_subword_prefix=INSIDE_WORD,
            show_progress=False,
        )
        learned.train_from_iterator(texts, trainer)
        return cls(_build_backend(learned.get_vocab(), lower_case=True), context_length)

    def single_pieces(self, words: Sequence[str]) -> list[int]:
        """Return each word's id, -1 where it is not exactly one piece of the vocabulary."""
        return [ids[0] if len(ids) == 1 and ids[0] != self.unknown_id else -1 for ids in self.pieces(words)]

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """Return the text up to the first end token, lower-cased, special tokens left out."""
        ids = [int(token_id) for token_id in token_ids]
        ids = ids[: ids.index(self.eot_id)] if self.eot_id in ids else ids
        return self._backend.decode([one for one in ids if one not in (self.start_id, self.pad_id)], False)

    def _named_specials(self) -> dict[str, str]:
        return {"cls_token": START, "sep_token": END, "pad_token": PAD, "unk_token": UNKNOWN, "mask_token": MASK}


def read_vocabulary(path: Path, config: Path) -> Backend:
    """Read BERT's vocab.txt, a piece a line; tokenizer_config.json says whether words keep their capitals."""
    stored = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return _build_backend(WordPiece.read_file(str(path)), lower_case=bool(stored.get("do_lower_case", True)))


def _build_backend(vocab: dict[str, int], *, lower_case: bool) -> Backend:
    """The pipeline of transformers' BertTokenizer around a vocabulary."""
    backend = Backend(WordPiece(vocab, unk_token=UNKNOWN, max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=INSIDE_WORD)
    known = [token for token in SPECIALS if token in vocab]
    if known:
        backend.add_special_tokens(known)
    return backend
