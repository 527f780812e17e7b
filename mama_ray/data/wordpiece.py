"""BERT's word-pieces: words lower-cased and cut into pieces, one inside a word marked by `##`.

Read from a `tokenizer.json` or BERT's `vocab.txt`, with the ids that transformers' BertTokenizer gives, or trained. The
tokenizer itself is `WordPieceTokenizer` in `tokenizer.py`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import WordPiece

from mama_ray.data.token_frame import TokenFrame
from mama_ray.errors import UserError

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIALS = (PAD, UNKNOWN, START, END, MASK)
INSIDE_WORD = "##"
VOCABULARY_FILE = "vocab.txt"
DIGITS = "0123456789"  # the answers of a multiple choice
_CLASSES = ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast")
WORD_PIECE_SETTINGS = {
    "tokenizer_class": "BertTokenizer",
    "cls_token": START,
    "sep_token": END,
    "pad_token": PAD,
    "unk_token": UNKNOWN,
    "mask_token": MASK,
}
ALWAYS_KNOWN = DIGITS + "abcdefghijklmnopqrstuvwxyz.,:?!'-"


def word_piece_frame(backend: Backend) -> tuple[TokenFrame, int]:
    """Return what stands around a text's pieces, and the id of [MASK]; UserError where one of them is missing."""
    vocab = backend.get_vocab(with_added_tokens=True)
    missing = [token for token in SPECIALS if token not in vocab]
    if missing:
        raise UserError("the tokenizer lacks special tokens", got=missing, wanted=f"{', '.join(SPECIALS)} as in BERT")
    return TokenFrame((vocab[START],), (vocab[END],), vocab[PAD], vocab[UNKNOWN]), vocab[MASK]


def train_word_pieces(texts: Iterable[str], vocab_size: int) -> Backend:
    """Learn pieces from `texts`. `vocab_size` is the most there will be; a small corpus may yield fewer.

    The ids are: the special tokens (pad 0), letters, letters inside a word, longer pieces in the order of their making.
    Latin letters and digits are always there; any other that no text has is unknown.
    """
    texts = list(texts)
    learned = _build_backend({}, lower_case=True)
    seen = {letter for text in texts for letter in learned.normalizer.normalize_str(text) if not letter.isspace()}
    letters = sorted(seen | set(ALWAYS_KNOWN))
    # The trainer would number letters inside a word in the order of a hash table, and merge by these numbers where
    # counts tie: named first, all of them have their place.
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
    return _build_backend(learned.get_vocab(), lower_case=True)


def is_word_piece(directory: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder, whose tokenizer_config.json has these settings, holds BERT's tokenizer."""
    named = settings.get("tokenizer_class")
    if named is not None or (directory / "vocab.json").is_file():
        return named in _CLASSES
    whole = directory / "tokenizer.json"
    if whole.is_file():
        return isinstance(Backend.from_file(str(whole)).model, WordPiece)
    return (directory / VOCABULARY_FILE).is_file()


def read_word_pieces(directory: Path, settings: Mapping[str, Any]) -> Backend:
    """Read tokenizer.json, or BERT's vocab.txt, a piece a line; the settings say whether words keep their capitals."""
    whole, pieces = directory / "tokenizer.json", directory / VOCABULARY_FILE
    if whole.is_file():
        return Backend.from_file(str(whole))
    if not pieces.is_file():
        raise UserError(
            "no tokenizer in the folder", got=str(directory), wanted=f"tokenizer.json, or {VOCABULARY_FILE} of BERT"
        )
    return _build_backend(WordPiece.read_file(str(pieces)), lower_case=bool(settings.get("do_lower_case", True)))


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
