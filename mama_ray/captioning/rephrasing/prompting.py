"""Captions in prompts: a caption is told as plain words, whatever it holds."""

import re
from typing import Any

from mama_ray.captioning.rephrasing.settings import TEXT_MARK

TOO_LONG = "the caption is too long to be rephrased"


class PlainWords:
    """Leaves out of captions what a tokenizer takes for more than words: a caption that holds `</s>` or a chat's marks
    must not end the prompt or speak for the model."""

    def __init__(self, tokenizer: Any) -> None:
        marks = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
        longest_first = sorted((mark for mark in marks if mark.strip()), key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, caption: str) -> str:
        """Return a caption's words in one line."""
        # A blank in its place: what stood around a mark does not come together to another.
        text = caption if self._marks is None else self._marks.sub(" ", caption)
        return " ".join(text.split())


def put_in(prompt: str, caption: str) -> str:
    """Return a prompt with a caption in it."""
    before, _, after = prompt.partition(TEXT_MARK)
    return f"{before}{caption}{after}"


def chat_token_ids(tokenizer: Any, prompt: str, caption: str) -> list[int]:
    """Return the tokens of what an instruct model's chat template makes of a prompt with a caption in it."""
    message = {"role": "user", "content": put_in(prompt, caption)}
    rendered = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    return tokenizer(rendered, add_special_tokens=False).input_ids


def too_long(num_tokens: int, limit: int) -> str:
    """Say that a prompt is too long; the numbers come behind a colon, so that reasons can be counted."""
    return f"{TOO_LONG}: {num_tokens} tokens with its prompt, at most {limit}"
