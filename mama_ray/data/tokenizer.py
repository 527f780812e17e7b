"""Texts to token ids: CLIP's tokenizer (byte-level BPE, lower-cased, a word's last piece marked by `</w>`), and others.

Reads a `tokenizer.json` or the OpenAI CLIP layout (`vocab.json` and `merges.txt`), gives the ids transformers'
CLIPTokenizer gives, and trains a small one. CLIP's `<|endoftext|>` always has the largest id, because the models take a
text's feature at the position of the largest id. BERT's is in `wordpiece.py`, those of transformers' other
dual encoders come through `foreign_tokenizer.py`. Long texts lose their tail, never their end token. LaViLa's release
loses that too, and so reads such a text at a piece that happens to have the largest id; `long_texts: lavila` in
tokenizer_config.json does the same, for parity.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64
from tokenizers import Tokenizer as Backend
from tokenizers import pre_tokenizers, trainers
from tokenizers.models import BPE

from mama_ray.data.clip_pieces import (
    END,
    END_OF_WORD,
    MIN_VOCAB_SIZE,
    START,
    build_clip_backend,
    in_clip_order,
)
from mama_ray.data.foreign_tokenizer import (
    CLIP_CLASSES,
    LONGEST_CONTEXT,
    load_foreign,
    longest_text,
    stored_context_length,
    tokenizer_settings,
)
from mama_ray.data.token_frame import TokenFrame, reachable_ids
from mama_ray.data.wordpiece import (
    VOCABULARY_FILE,
    WORD_PIECE_SETTINGS,
    is_word_piece,
    read_word_pieces,
    train_word_pieces,
    word_piece_frame,
)
from mama_ray.errors import UserError

CONFIG_FILE = "tokenizer_config.json"
_MAX_BYTES = 64 << 20  # CLIP's has 3.6 MB
DEFAULT_CONTEXT_LENGTH = 77  # CLIP's
LongTexts = Literal["keep_end", "lavila"]


class Tokenizer:
    """Texts to token ids (batch, context_length), and back.

    Attributes:
        vocab_size: ids run from 0 to vocab_size - 1.
        context_length: tokens per text, start and end tokens included.
        start_id, eot_id: of CLIP's layout, where `eot_id` is vocab_size - 1 and is also the padding, and of BERT's;
            None in others.
        pad_id: what fills a text up.
        long_texts: what a text that is too long loses: its tail (keep_end), or as in LaViLa's release the end token as
            well (lavila), which CLIP's layout alone has.
    """

    def __init__(
        self,
        backend: Backend,
        context_length: int = DEFAULT_CONTEXT_LENGTH,
        *,
        frame: TokenFrame | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Take CLIP's layout, or with a `frame` another; `settings` are tokenizer_config.json's."""
        if context_length < 2:
            raise UserError("context_length", got=context_length, wanted="at least 2: the start and the end token")
        self._backend = backend
        self._backend.no_padding()
        self._backend.no_truncation()
        self.context_length = context_length
        self._settings = settings or {}
        self.start_id: int | None = None
        self.eot_id: int | None = None
        self._is_clip = frame is None
        self.long_texts = self._long_texts()
        if frame is None:
            frame = self._clip_frame(backend)
        else:
            self.vocab_size = reachable_ids(backend, frame)
            self._backend.encode_special_tokens = True  # a text that has a special token's name means its letters
        self._frame, self.pad_id = frame, frame.pad_id

    def _long_texts(self) -> LongTexts:
        how = self._settings.get("long_texts", "keep_end")
        known = get_args(LongTexts) if self._is_clip else ("keep_end",)
        if how not in known:
            kind = "CLIP's tokenizer" if self._is_clip else "a tokenizer that is not CLIP's"
            raise UserError(f"long_texts of {kind}", got=how, wanted=" or ".join(known))
        return how

    @property
    def is_clip(self) -> bool:
        """Whether it is in CLIP's layout: the end token has the largest id and ends a text for the model."""
        return self._is_clip

    def fits(self, vocab_size: int) -> bool:
        """Tell whether the ids can be those of a model with this vocabulary: CLIP's all of them, others' some."""
        return self.vocab_size == vocab_size if self.is_clip else self.vocab_size <= vocab_size

    def _clip_frame(self, backend: Backend) -> TokenFrame:
        vocab = backend.get_vocab(with_added_tokens=True)
        missing = [token for token in (START, END) if token not in vocab]
        if missing:
            raise UserError("the tokenizer lacks special tokens", got=missing, wanted=f"{START} and {END} as in CLIP")
        self.start_id, self.eot_id = vocab[START], vocab[END]
        self.vocab_size = max(vocab.values()) + 1
        if self.eot_id != self.vocab_size - 1:
            raise UserError(
                f"{END} must have the largest token id, since a text's feature is read at the largest id",
                got=self.eot_id,
                wanted=self.vocab_size - 1,
                remedy="use a tokenizer in CLIP's layout, without tokens added behind it",
            )
        return TokenFrame((self.start_id,), (self.eot_id,), self.eot_id, unknown_id=self.eot_id)

    @classmethod
    def from_directory(cls, path: str | Path, context_length: int | None = None) -> "Tokenizer":
        """Load CLIP's `tokenizer.json`, else `vocab.json` with `merges.txt`, or BERT's word-pieces, or what else
        tokenizer_config.json names.

        The context length is the argument, else `model_max_length` of `tokenizer_config.json`, else CLIP's 77. Raises
        UserError when the files are missing or are not a tokenizer.
        """
        directory = Path(path)
        whole, vocab, merges, pieces = (
            directory / name for name in ("tokenizer.json", "vocab.json", "merges.txt", VOCABULARY_FILE)
        )
        for path in (whole, vocab, merges, pieces, directory / CONFIG_FILE):
            if path.is_file() and path.stat().st_size > _MAX_BYTES:
                raise UserError("a file of the tokenizer is too large", got=path, wanted=f"{_MAX_BYTES} bytes at most")
        kind: type[Tokenizer] = cls
        try:
            settings = tokenizer_settings(directory)
            stored = stored_context_length(settings)
            frame = None
            if is_word_piece(directory, settings):
                backend, kind = read_word_pieces(directory, settings), WordPieceTokenizer
            elif "token_frame" in settings:
                frame = TokenFrame.from_json(settings["token_frame"])
                backend = Backend.from_file(str(whole))
            elif settings.get("tokenizer_class") not in CLIP_CLASSES:
                backend, frame = load_foreign(directory, settings)
                stored = min(stored or LONGEST_CONTEXT, longest_text(directory))
            elif whole.is_file():
                backend = Backend.from_file(str(whole))
            elif vocab.is_file() and merges.is_file():
                backend = build_clip_backend(*BPE.read_file(str(vocab), str(merges)))
            else:
                raise UserError(
                    "no tokenizer in the folder",
                    got=str(directory),
                    wanted="tokenizer.json, vocab.json and merges.txt, or vocab.txt",
                )
        except UserError:
            raise
        except Exception as error:  # the tokenizers library raises plain Exception for every bad file
            raise UserError(
                "the tokenizer files cannot be read", got=str(error), wanted=f"a tokenizer in {directory}"
            ) from error
        return kind(backend, context_length or stored or DEFAULT_CONTEXT_LENGTH, frame=frame, settings=settings)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, context_length: int) -> "Tokenizer":
        """Learn merges from `texts`. `vocab_size` is the most there will be; a small corpus may yield fewer.

        The ids are in CLIP's order: bytes, bytes that end a word, merges, start token, end token. All bytes are
        there, so no text is ever unknown.
        """
        if vocab_size < MIN_VOCAB_SIZE:
            raise UserError("vocab_size of the tokenizer", got=vocab_size, wanted=f"at least {MIN_VOCAB_SIZE}")
        learned = build_clip_backend({}, [])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            end_of_word_suffix=END_OF_WORD,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        learned.train_from_iterator(texts, trainer)
        merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
        return cls(build_clip_backend(*in_clip_order(merges, vocab_size)), context_length)

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` (with the context length) into a folder."""
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(directory / "tokenizer.json"))
        config: dict[str, Any] = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": self.context_length,
            "bos_token": START,
            "eos_token": END,
            "pad_token": END,
            "unk_token": END,
        }
        if self.long_texts != "keep_end":
            config["long_texts"] = self.long_texts
        if not self.is_clip:
            config = self._settings | {
                "model_max_length": self.context_length,
                "token_frame": self._frame.to_json(),
            }
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def __call__(self, texts: Sequence[str], length: int | None = None) -> Int64[np.ndarray, "batch tokens"]:
        """Return int64 ids (len(texts), context_length, or `length`): start, pieces, end, then padding (CLIP: end)."""
        if isinstance(texts, str):
            raise TypeError("texts: got one string, wanted a list of strings")
        longest, frame = length or self.context_length, self._frame
        token_ids = np.full((len(texts), longest), self.pad_id, dtype=np.int64)
        for row, encoding in zip(
            token_ids, self._backend.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            keeps_end = self.long_texts == "keep_end"
            pieces = encoding.ids[: max(0, longest - frame.num_special)] if keeps_end else encoding.ids
            ids = [*frame.prefix, *pieces, *frame.suffix][:longest]
            row[: len(ids)] = ids
        return token_ids

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of the pieces of each text, without start and end tokens, however many they are."""
        return [encoding.ids for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False)]

    def measure(self, texts: Sequence[str]) -> tuple[Int64[np.ndarray, "batch"], Bool[np.ndarray, "batch"]]:
        """Return the tokens of texts, start and end included, whatever the context; and whether one of a text's pieces
        is unknown or a special token, which ends the text for a model of CLIP's kind.
        """
        specials, num_special = self._frame.ends, self._frame.num_special
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        lengths = np.array([len(encoding.ids) + num_special for encoding in encodings], np.int64)
        return lengths, np.array([not specials.isdisjoint(encoding.ids) for encoding in encodings], bool)

    def count_other_pieces(self, other: "Tokenizer") -> int:
        """Return how many pieces have another id, or none, in another tokenizer, and how many merges are not its."""
        ours, theirs = self._backend.get_vocab(), other._backend.get_vocab()
        models = (json.loads(one.to_str())["model"] for one in (self._backend, other._backend))
        merges, other_merges = (model.get("merges", []) for model in models)  # SentencePiece's unigrams have none
        num_pieces = sum(theirs.get(piece) != number for piece, number in ours.items())
        num_merges = sum(one != two for one, two in zip_longest(merges, other_merges))
        return max(num_pieces, num_merges)

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """Return the text up to the first end token, lower-cased, words separated by one space."""
        ids = [int(token_id) for token_id in token_ids]
        if not self.is_clip:
            return self._backend.decode([one for one in ids if one not in (*self._frame.ends, self.pad_id)]).strip()
        ids = ids[: ids.index(self.eot_id)] if self.eot_id in ids else ids
        text = self._backend.decode(
            [token_id for token_id in ids if token_id != self.start_id], skip_special_tokens=False
        )
        return text.replace(END_OF_WORD, " ").strip()


class WordPieceTokenizer(Tokenizer):
    """BERT's: a text is [CLS] pieces [SEP], then [PAD]; `mask_id` is that of [MASK].

    What is spelt like a special token in a text is text: a question that holds "[MASK]" has no second mask.
    """

    def __init__(
        self,
        backend: Backend,
        context_length: int = DEFAULT_CONTEXT_LENGTH,
        *,
        frame: TokenFrame | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Take BERT's layout, whose frame follows from the vocabulary."""
        frame, self.mask_id = word_piece_frame(backend)
        super().__init__(backend, context_length, frame=frame, settings=WORD_PIECE_SETTINGS | (settings or {}))
        (self.start_id,), (self.eot_id,) = frame.prefix, frame.suffix

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, context_length: int) -> "WordPieceTokenizer":
        """Learn pieces from `texts`, as `train_word_pieces` does."""
        return cls(train_word_pieces(texts, vocab_size), context_length)

    def words(self) -> tuple[str, ...]:
        """Return every piece of the vocabulary as it is written there, in the order of the ids."""
        return tuple(self._backend.id_to_token(number) or f"[{number}]" for number in range(self.vocab_size))

    def single_pieces(self, words: Sequence[str]) -> list[int]:
        """Return each word's id, -1 where it is not exactly one piece of the vocabulary."""
        unknown = self._frame.unknown_id
        return [ids[0] if len(ids) == 1 and ids[0] != unknown else -1 for ids in self.pieces(words)]
