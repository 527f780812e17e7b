"""CLIP's tokenizer: byte-level BPE, lower-cased, a word's last piece marked by `</w>`; BERT's is `data/wordpiece.py`.

Reads a `tokenizer.json` or the OpenAI CLIP layout (`vocab.json` and `merges.txt`), gives the ids transformers'
CLIPTokenizer gives, and trains a small one. `<|endoftext|>` always has the largest id, because the models take a
text's feature at the position of the largest id. Long texts lose their tail, never their end token (LaViLa's release
loses it).
"""

import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, WordPiece

from mama_ray.errors import UserError

START, END, END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CONFIG_FILE = "tokenizer_config.json"
_MAX_BYTES = 64 << 20  # CLIP's has 3.6 MB
DEFAULT_CONTEXT_LENGTH = 77  # CLIP's
MIN_VOCAB_SIZE = 2 * 256 + 2  # every byte inside and at the end of a word, and the two special tokens


class Tokenizer:
    """Texts to token ids (batch, context_length), and back.

    Attributes:
        vocab_size: ids run from 0 to vocab_size - 1.
        context_length: tokens per text, start and end tokens included.
        start_id, eot_id, pad_id: CLIP's `eot_id` is vocab_size - 1 and is also the padding.
        unknown_id: what stands for a piece that has no id; CLIP's is the end token.
    """

    start, end, pad, unknown = START, END, END, END
    class_name = "CLIPTokenizer"  # transformers', for tokenizer_config.json

    def __init__(self, backend: Backend, context_length: int = DEFAULT_CONTEXT_LENGTH) -> None:
        if context_length < 2:
            raise UserError("context_length", got=context_length, wanted="at least 2: the start and the end token")
        self._backend = backend
        self._backend.no_padding()
        self._backend.no_truncation()
        self.context_length = context_length
        vocab = backend.get_vocab(with_added_tokens=True)
        specials = (self.start, self.end, self.pad, self.unknown)
        missing = [token for token in dict.fromkeys(specials) if token not in vocab]
        if missing:
            wanted = f"{self.start} and {self.end} as in {self.class_name.removesuffix('Tokenizer')}"
            raise UserError("the tokenizer lacks special tokens", got=missing, wanted=wanted)
        self.start_id, self.eot_id, self.pad_id, self.unknown_id = (vocab[token] for token in specials)
        self.vocab_size = max(vocab.values()) + 1
        self._require_layout()

    def _require_layout(self) -> None:
        if self.eot_id != self.vocab_size - 1:
            raise UserError(
                f"{END} must have the largest token id, since a text's feature is read at the largest id",
                got=self.eot_id,
                wanted=self.vocab_size - 1,
                remedy="use a tokenizer in CLIP's layout, without tokens added behind it",
            )

    @classmethod
    def from_directory(cls, path: str | Path, context_length: int | None = None) -> "Tokenizer":
        """Load `tokenizer.json`, else `vocab.json` with `merges.txt`, or BERT's word-pieces, which the files show.

        The context length is the argument, else `model_max_length` of `tokenizer_config.json`, else CLIP's 77. Raises
        UserError when the files are missing or are no such tokenizer.
        """
        from mama_ray.data.wordpiece import WordPieceTokenizer, read_vocabulary  # which builds on this module

        directory = Path(path)
        whole, vocab, merges, pieces = (
            directory / name for name in ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
        )
        for path in (whole, vocab, merges, pieces, directory / CONFIG_FILE):
            if path.is_file() and path.stat().st_size > _MAX_BYTES:
                raise UserError("a file of the tokenizer is too large", got=path, wanted=f"{_MAX_BYTES} bytes at most")
        kind: type[Tokenizer] = cls
        try:
            if whole.is_file():
                backend = Backend.from_file(str(whole))
                kind = WordPieceTokenizer if isinstance(backend.model, WordPiece) else cls
            elif vocab.is_file() and merges.is_file():
                backend = _build_backend(*BPE.read_file(str(vocab), str(merges)))
            elif pieces.is_file():
                backend, kind = read_vocabulary(pieces, directory / CONFIG_FILE), WordPieceTokenizer
            else:
                raise UserError(
                    "no tokenizer in the folder",
                    got=str(directory),
                    wanted="tokenizer.json, vocab.json and merges.txt, or vocab.txt",
                )
            stored = _stored_context_length(directory / CONFIG_FILE)
        except UserError:
            raise
        except Exception as error:  # the tokenizers library raises plain Exception for every bad file
            raise UserError(
                "the tokenizer files cannot be read",
                got=str(error),
                wanted=f"CLIP's or BERT's tokenizer in {directory}",
            ) from error
        return kind(backend, context_length or stored or DEFAULT_CONTEXT_LENGTH)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, context_length: int) -> "Tokenizer":
        """Learn merges from `texts`. `vocab_size` is the most there will be; a small corpus may yield fewer.

        The ids are in CLIP's order: bytes, bytes that end a word, merges, start token, end token. All bytes are
        there, so no text is ever unknown.
        """
        if vocab_size < MIN_VOCAB_SIZE:
            raise UserError("vocab_size of the tokenizer", got=vocab_size, wanted=f"at least {MIN_VOCAB_SIZE}")
        learned = _build_backend({}, [])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            end_of_word_suffix=END_OF_WORD,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        learned.train_from_iterator(texts, trainer)
        merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
        return cls(_build_backend(*_in_clip_order(merges, vocab_size)), context_length)

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` (with the context length) into a folder."""
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(directory / "tokenizer.json"))
        config = {
            "tokenizer_class": self.class_name,
            "model_max_length": self.context_length,
            **self._named_specials(),
        }
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def _named_specials(self) -> dict[str, str]:
        return {"bos_token": self.start, "eos_token": self.end, "pad_token": self.pad, "unk_token": self.unknown}

    def __call__(self, texts: Sequence[str]) -> Int64[np.ndarray, "batch tokens"]:
        """Return int64 ids (len(texts), context_length): start, pieces, end, then padding."""
        if isinstance(texts, str):
            raise TypeError("texts: got one string, wanted a list of strings")
        token_ids = np.full((len(texts), self.context_length), self.pad_id, dtype=np.int64)
        for row, encoding in zip(
            token_ids, self._backend.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            pieces = encoding.ids[: self.context_length - 2]
            row[0] = self.start_id
            row[1 : 1 + len(pieces)] = pieces
            row[1 + len(pieces)] = self.eot_id
        return token_ids

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of the pieces of each text, without start and end tokens, however many they are."""
        return [encoding.ids for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False)]

    def measure(self, texts: Sequence[str]) -> tuple[Int64[np.ndarray, "batch"], Bool[np.ndarray, "batch"]]:
        """Return the tokens of texts, start and end included, whatever the context; and whether one of a text's pieces
        is unknown or a special token, which ends the text for a model of CLIP's kind.
        """
        specials = {self.start_id, self.eot_id, self.unknown_id}
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        lengths = np.array([len(encoding.ids) + 2 for encoding in encodings], np.int64)
        return lengths, np.array([not specials.isdisjoint(encoding.ids) for encoding in encodings], bool)

    def count_other_pieces(self, other: "Tokenizer") -> int:
        """Return how many pieces have another id, or none, in another tokenizer, and how many merges are not its."""
        ours, theirs = self._backend.get_vocab(), other._backend.get_vocab()
        merges, other_merges = (
            json.loads(one.to_str())["model"].get("merges", []) for one in (self._backend, other._backend)
        )
        num_pieces = sum(theirs.get(piece) != number for piece, number in ours.items())
        num_merges = sum(one != two for one, two in zip_longest(merges, other_merges))
        return max(num_pieces, num_merges)

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """Return the text up to the first end token, lower-cased, words separated by one space."""
        ids = [int(token_id) for token_id in token_ids]
        ids = ids[: ids.index(self.eot_id)] if self.eot_id in ids else ids
        text = self._backend.decode(
            [token_id for token_id in ids if token_id != self.start_id], skip_special_tokens=False
        )
        return text.replace(END_OF_WORD, " ").strip()


def _build_backend(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Backend:
    """The pipeline of transformers' CLIPTokenizer around a vocabulary and its merges."""
    model = BPE(
        vocab=vocab,
        merges=merges,
        continuing_subword_prefix="",
        end_of_word_suffix=END_OF_WORD,
        fuse_unk=False,
        unk_token=END,
    )
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    if START in vocab and END in vocab:
        backend.add_special_tokens([START, END])
        backend.post_processor = processors.RobertaProcessing(
            (END, vocab[END]), (START, vocab[START]), trim_offsets=False, add_prefix_space=False
        )
    return backend


def _in_clip_order(merges: list[tuple[str, str]], vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary with CLIP's ids for as many of these merges as fit, and those merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    kept = merges[: vocab_size - MIN_VOCAB_SIZE]
    tokens = [*alphabet, *(byte + END_OF_WORD for byte in alphabet), *(left + right for left, right in kept)]
    # Two merges may spell the same token, which keeps one id.
    return {token: number for number, token in enumerate(dict.fromkeys([*tokens, START, END]))}, kept


def _stored_context_length(path: Path) -> int | None:
    if not path.is_file():
        return None
    length = json.loads(path.read_text(encoding="utf-8")).get("model_max_length")
    # transformers writes 1e30 for "no limit"
    return int(length) if isinstance(length, int | float) and 2 <= length <= 1 << 20 else None
