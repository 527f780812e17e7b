"""What stands around the pieces of a text: special tokens before and behind them, and what fills it up."""

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend


@dataclass(frozen=True)
class TokenFrame:
    """A text is `prefix`, its pieces, `suffix`, and `pad_id` to the end of the context.

    Attributes:
        unknown_id: of what the vocabulary has no piece for; None where everything has one.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pad_id: int
    unknown_id: int | None = None

    @property
    def num_special(self) -> int:
        """Tokens of a text beside its pieces."""
        return len(self.prefix) + len(self.suffix)

    @property
    def ends(self) -> set[int]:
        """Ids that are no piece of a text: where they are found in one, it holds what the tokenizer does not know."""
        return {*self.prefix, *self.suffix} | ({self.unknown_id} if self.unknown_id is not None else set())

    def to_json(self) -> dict[str, Any]:
        """Return the content of `token_frame` in tokenizer_config.json."""
        frame = {"prefix": list(self.prefix), "suffix": list(self.suffix), "pad_id": self.pad_id}
        return frame | {"unknown_id": self.unknown_id}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TokenFrame":
        """Read what `to_json` gave; KeyError, TypeError or ValueError for anything else."""
        return cls(
            prefix=tuple(int(one) for one in content["prefix"]),
            suffix=tuple(int(one) for one in content["suffix"]),
            pad_id=int(content["pad_id"]),
            unknown_id=None if content["unknown_id"] is None else int(content["unknown_id"]),
        )


def reachable_ids(backend: Backend, frame: TokenFrame) -> int:
    """One more than the largest id that a text can have: special tokens that no text has may lie behind (T5's)."""
    special = {number for number, token in backend.get_added_tokens_decoder().items() if token.special}
    pieces = set(backend.get_vocab(with_added_tokens=True).values()) - special
    return max(pieces | frame.ends | {frame.pad_id}) + 1
