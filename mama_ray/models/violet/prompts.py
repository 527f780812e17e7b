"""Questions as prompts with one [MASK], where VIOLETv2 predicts the answer (arXiv 2209.01540, section 3).

Open-ended: "[CLS] question answer: [MASK] [SEP]", answered by one word-piece. Multiple choice: "[CLS] question [SEP]
option 0: ... [SEP] option 4: ... [MASK] [SEP]", answered by an option's digit. What does not fit is cut, and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64

from mama_ray.data.tokenizer import WordPieceTokenizer
from mama_ray.data.wordpiece import DIGITS
from mama_ray.errors import UserError
from mama_ray.models.settings import QuestionForm

QUESTION_PIECES = 24
OPEN_LENGTH = 30
CHOICE_LENGTH = 103


@dataclass(frozen=True)
class Prompts:
    """Prompts of one length, filled up with [PAD].

    Attributes:
        token_ids: the prompts.
        mask_positions: where [MASK] stands in each.
        digit_token_ids: of a multiple choice, the ids of the digits 0, 1, ... of each prompt's options.
        num_cut: prompts whose question or options lost pieces.
    """

    token_ids: Int64[np.ndarray, "batch tokens"]
    mask_positions: Int64[np.ndarray, " batch"]
    digit_token_ids: Int64[np.ndarray, "batch options"] | None
    num_cut: int

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what `Violet.answer` reads, by its names."""
        arrays = {"token_ids": self.token_ids, "mask_positions": self.mask_positions}
        return arrays if self.digit_token_ids is None else arrays | {"digit_token_ids": self.digit_token_ids}


def open_prompts(tokenizer: WordPieceTokenizer, questions: Sequence[str], *, length: int = OPEN_LENGTH) -> Prompts:
    """Return the prompts of open-ended questions, each question cut to 24 pieces (or what a smaller length leaves)."""
    (ending,) = tokenizer.pieces(["answer:"])
    room = min(QUESTION_PIECES, length - len(ending) - 3)
    if room < 1:
        raise UserError("a prompt has no room for its question", got=f"length {length}", wanted=len(ending) + 4)
    asked = tokenizer.pieces(questions)
    bodies = [pieces[:room] + ending for pieces in asked]
    return _prompts(tokenizer, bodies, length, None, num_cut=sum(len(pieces) > room for pieces in asked))


def choice_prompts(
    tokenizer: WordPieceTokenizer,
    questions: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    length: int = CHOICE_LENGTH,
    form: QuestionForm = "release",
) -> Prompts:
    """Return the prompts of multiple-choice questions, all of which have as many options, up to ten.

    Of a prompt that is too long the end is cut. In the form `fitted` the question is cut to 24 pieces first, then the
    longest options, alike, and no [SEP] stands before an option.
    """
    counts = {len(one) for one in options}
    if len(options) != len(questions) or len(counts) != 1 or not 1 < max(counts) <= len(DIGITS):
        raise UserError(
            "options of multiple-choice questions",
            got=f"{len(options)} lists of {sorted(counts)} options for {len(questions)} questions",
            wanted=f"one list for each question, all of one length from 2 to {len(DIGITS)}",
        )
    num_options = counts.pop()
    digits = tokenizer.single_pieces(DIGITS[:num_options])
    if -1 in digits:
        raise UserError("the vocabulary lacks a digit", got=DIGITS[digits.index(-1)], wanted="digits as word-pieces")
    heads = tokenizer.pieces([f"option {digit}:" for digit in DIGITS[:num_options]])
    if form == "release":
        heads = [[tokenizer.eot_id, *head] for head in heads]
    bodies, num_cut = [], 0
    for question, ended in zip(tokenizer.pieces(questions), map(tokenizer.pieces, options), strict=True):
        parts = list(zip(heads, ended, strict=True))
        body, is_cut = _cut_at_end(question, parts, length) if form == "release" else _fitted(question, parts, length)
        bodies.append(body)
        num_cut += is_cut
    return _prompts(tokenizer, bodies, length, np.array([digits] * len(bodies)), num_cut=num_cut)


def answer_list(tokenizer: WordPieceTokenizer, answers: Sequence[str]) -> tuple[list[str], Int64[np.ndarray, " kept"]]:
    """Return the answers that are one word-piece, in their order, and their ids for `Violet.set_answers`.

    The others cannot be predicted: they count as wrong and stay in the denominator.
    """
    ids = tokenizer.single_pieces(answers)
    kept = [place for place, number in enumerate(ids) if number >= 0]
    return [answers[place] for place in kept], np.array([ids[place] for place in kept], np.int64)


def choose_option(
    logits: Float[np.ndarray, "batch options"], rule: Literal["argmax", "legacy"] = "argmax"
) -> Int64[np.ndarray, " batch"]:
    """Return the chosen option of each question.

    `legacy` is the rule of VIOLET's release: logits are divided by their sum first, so that where it is negative the
    worst option is chosen. It is here to reproduce that release's numbers alone.
    """
    scores = logits / logits.sum(axis=1, keepdims=True) if rule == "legacy" else logits
    return scores.argmax(axis=1).astype(np.int64)


_Parts = Sequence[tuple[list[int], list[int]]]  # "option 0:" and the option's own pieces, of each


def _cut_at_end(question: list[int], parts: _Parts, length: int) -> tuple[list[int], bool]:
    """Return a prompt's pieces and whether it lost some; the release leaves one place more than its tokens need."""
    room = length - 4
    _require_room(room - sum(len(head) for head, _ in parts), parts, length)
    body = [*question, *chain.from_iterable(chain.from_iterable(parts))]
    return body[:room], len(body) > room


def _fitted(question: list[int], parts: _Parts, length: int) -> tuple[list[int], bool]:
    """Return a prompt's pieces and whether it lost some, every option with as many of its own as possible."""
    kept = question[:QUESTION_PIECES]
    room = length - 3 - len(kept) - sum(len(head) for head, _ in parts)
    _require_room(room, parts, length)
    lengths = [len(pieces) for _, pieces in parts]
    longest = _fitting_length(lengths, room)
    body = kept + [piece for head, pieces in parts for piece in (*head, *pieces[:longest])]
    return body, len(question) > QUESTION_PIECES or max(lengths) > longest


def _require_room(room: int, parts: _Parts, length: int) -> None:
    if room < len(parts):
        raise UserError("a prompt has no room for its options", got=f"length {length}", wanted="a greater length")


def _fitting_length(lengths: list[int], room: int) -> int:
    """Return the greatest length to which texts can be cut so that together they have no more than `room`."""
    longest = max(lengths)
    while sum(min(one, longest) for one in lengths) > room:
        longest -= 1
    return longest


def _prompts(
    tokenizer: WordPieceTokenizer,
    bodies: list[list[int]],
    length: int,
    digits: Int64[np.ndarray, "batch options"] | None,
    *,
    num_cut: int,
) -> Prompts:
    token_ids = np.full((len(bodies), length), tokenizer.pad_id, np.int64)
    for row, body in zip(token_ids, bodies, strict=True):
        whole = [tokenizer.start_id, *body, tokenizer.mask_id, tokenizer.eot_id]
        row[: len(whole)] = whole
    positions = np.array([1 + len(body) for body in bodies], np.int64)
    return Prompts(token_ids, positions, digits, num_cut)
