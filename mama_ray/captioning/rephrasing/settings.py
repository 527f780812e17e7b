"""How paraphrases are decoded, chosen and written."""

from typing import Literal

from pydantic import Field, model_validator

from mama_ray.config import Config

TEXT_MARK = "{text}"
"""Where a prompt has the caption."""

T5_PROMPT = f"paraphrase: {TEXT_MARK} </s>"
"""As the card of ramsrigouthamg/t5-large-paraphraser-diverse-high-quality has it, the model of LaViLa's REPHRASER."""

INSTRUCT_PROMPT = (
    "Rewrite this description of a short video in other words. Keep its meaning, name the same things and actions, add "
    f"nothing. Answer with one sentence alone.\n\n{TEXT_MARK}"
)


# How many beams there are stands in recipes, LaViLa's job among them, of which a command line may take the sampling.
_OF_BEAMS = ("diversity_penalty", "length_penalty", "early_stopping")
_OF_SAMPLING = ("num_samples", "temperature", "top_k", "top_p", "seed")


class DecodingConfig(Config):
    """How candidates are decoded, and how many of them are kept. What is of the other method is refused."""

    method: Literal["beams", "sampling"] = "beams"
    """beams: diverse beam search, for a T5 alone; sampling: of either kind of model."""

    num_kept: int = Field(default=3, ge=1, le=64)
    """Paraphrases of a caption that are written, LaViLa's 3: the best candidates that differ from every human caption
    of the clip and from each other. A place for which there is none is a row that says so."""

    num_beams: int = Field(default=20, ge=1, le=256)
    """Beams of a caption, in all its groups."""

    num_groups: int = Field(default=20, ge=1, le=256)
    """Groups that the beams are shared out to; each is a beam search of its own that is kept off the tokens which the
    groups before it chose in the same place."""

    diversity_penalty: float = Field(default=0.7, ge=0.0, le=100.0)
    """What a token's log-probability loses for each beam of an earlier group that has it there. 0 with one group is
    plain beam search; with several groups all find the same."""

    length_penalty: float = Field(default=1.0, ge=-10.0, le=10.0)
    """A candidate's score is its log-probability, less its penalties, over its number of tokens to this power."""

    early_stopping: bool = True
    """End a group when it has as many whole candidates as beams; false goes on while a better one may come."""

    num_samples: int = Field(default=10, ge=1, le=64)
    """Candidates of a caption that are sampled, each with a seed of its own."""

    temperature: float = Field(default=0.9, gt=0.0, le=5.0)
    """Of sampling; applied first."""

    top_k: int = Field(default=0, ge=0)
    """Likeliest tokens that are sampled from; 0 is all. Applied after the temperature."""

    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    """Share of probability mass that is sampled from; applied last."""

    seed: int = Field(default=0, ge=0)
    """Of sampling; each clip, caption and sample has its own, made from it."""

    max_length: int = Field(default=128, ge=4, le=4096)
    """Tokens after which an answer is cut off (and flagged so), and tokens that a T5's prompt may have; an instruct
    model's may have what its context leaves. A caption with a longer prompt is a row that says so: half of it would not
    be rephrased."""

    @model_validator(mode="after")
    def _settings_are_of_the_method(self) -> "DecodingConfig":
        others = _OF_SAMPLING if self.method == "beams" else _OF_BEAMS
        if told := [name for name in self.changed_beside("method") if name in others]:
            wanted = "sampling" if self.method == "beams" else "beams"
            raise ValueError(
                f"{', '.join(told)} have no use with method {self.method}: leave them out, or say {wanted}"
            )
        return self

    @model_validator(mode="after")
    def _candidates_are_enough(self) -> "DecodingConfig":
        if self.method == "beams" and self.num_beams % self.num_groups:
            raise ValueError(f"num_beams {self.num_beams} cannot be shared out evenly to num_groups {self.num_groups}")
        if self.num_kept > self.num_candidates:
            raise ValueError(f"num_kept {self.num_kept} is more than the {self.num_candidates} candidates of a caption")
        return self

    @property
    def num_candidates(self) -> int:
        """Candidates of a caption."""
        return self.num_beams if self.method == "beams" else self.num_samples


class WordingConfig(Config):
    """How a model's words become a paraphrase."""

    remove_punctuation: bool = True
    """Leave punctuation out, as LaViLa's file rephraser.no_punkt does: apostrophes and hyphens inside words and the #
    of #C and #O stay."""
