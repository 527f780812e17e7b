"""What a kind of narrator owes its training: everything that jobs/narrator.py asks of one, whichever model it is.

A kind is a module with these functions (`llava.py`, `gated.py`); `kinds.py` says which there are. What a process
learns of a narrator before its weights are there, `NarratorFacts` and the files of its tokenizer or processor, is small
and can be sent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from mama_ray.captioning.narrator.settings import FrameInput, NarratorInput, NarratorModelConfig
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.captioning.prompts import PromptConfig
from mama_ray.data.video.settings import DecodeConfig, Interpolation

IGNORED = -100  # the label that cross_entropy passes over

Files = Mapping[str, bytes]
"""Of a tokenizer or processor, by name."""


@dataclass(frozen=True)
class NarratorSettings:
    """What a job says of its narrator and of what it is shown."""

    model: NarratorModelConfig
    prompt: PromptConfig
    grid: ClipGridConfig
    frames: FrameInput

    @property
    def input(self) -> NarratorInput:
        """What the folder of a narrator that is asked remembers."""
        return NarratorInput(prompt=self.prompt, grid=self.grid)


@dataclass(frozen=True)
class NarratorFacts:
    """What is known of a narrator before its weights are there.

    Attributes:
        kind: its name in `kinds.KINDS`.
        prompt: rendered; "" where nothing is asked.
        side: pixels of the square it is shown.
        num_frames: of a clip; 0 where it is shown one picture of all.
        end_id: the token that ends a caption.
        interpolation: the filter that scales its frames.
    """

    kind: str
    prompt: str
    side: int
    num_frames: int
    end_id: int
    interpolation: Interpolation = "bicubic"


class Labels(Protocol):
    """Turns captions into labels."""

    def __call__(self, captions: Sequence[str]) -> Int64[np.ndarray, "batch tokens"]:
        """Return tokens, end token, then IGNORED."""


class Show(Protocol):
    """Turns the bytes of a clip into what the narrator is shown."""

    shape: tuple[int, ...]

    def __call__(self, payload: bytes, rng: np.random.Generator | None) -> UInt8[np.ndarray, "*shape"]:
        """Return the pixels; `rng` None is how they are shown outside training. Raises DecodeError."""


class NarratorLoss(Protocol):
    """The module that training calls, in DDP's wrapping or not. It holds the model."""

    def __call__(
        self, shown: UInt8[Tensor, "batch *shape"], labels: Int64[Tensor, "batch tokens"]
    ) -> Float[Tensor, ""]:
        """Return the loss in nats, summed over all labels that count; 0 where none does."""

    def num_places(self, labels: Int64[Tensor, "batch tokens"]) -> Tensor:
        """Return by how much the sum is divided for the mean that is learned from."""

    def narrate(self, shown: UInt8[Tensor, "batch *shape"], *, max_tokens: int) -> list[str]:
        """Return the likeliest captions, greedily chosen."""


class TaughtNarrator(Protocol):
    """A narrator in memory."""

    @property
    def model(self) -> nn.Module:
        """Its weights."""

    def choose_trained_parts(self, model: NarratorModelConfig) -> None:
        """Let gradients flow to some parts alone."""

    def shrink_frozen_parts(self) -> None:
        """Keep what does not train in bfloat16, where it is used with no more digits and can be."""

    def recompute_activations(self) -> None:
        """Trade time for memory in the backward pass."""

    def build_loss(self, facts: NarratorFacts, model: NarratorModelConfig, *, max_caption_tokens: int) -> nn.Module:
        """Return a `NarratorLoss`; UserError where such captions do not fit the model's context."""

    def save(self, directory: Path, narrator_input: NarratorInput, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the model folder, with other `weights` under the model's names where they are given; config.json comes
        last, so half a folder is no model."""


class NarratorKind(Protocol):
    """A module that makes narrators of one kind."""

    UNUSED: tuple[str, ...]
    """Dotted names of the job's settings that say nothing to this kind."""

    def describe(
        self, source: Path | None, settings: NarratorSettings, texts: Callable[[], Iterable[str]]
    ) -> tuple[Files, NarratorFacts]:
        """Return tokenizer or processor, and facts, of a narrator folder, or for None of what a preset starts as.

        `texts` gives captions to train a tokenizer on. Raises UserError for what is damaged or does not fit.
        """

    def labels(self, facts: NarratorFacts, files: Files, *, max_tokens: int) -> Labels:
        """Return what makes labels; it needs neither torch's models nor transformers."""

    def show(self, facts: NarratorFacts, settings: NarratorSettings, decode: DecodeConfig) -> Show:
        """Return what shows clips."""

    def start(self, facts: NarratorFacts, files: Files, settings: NarratorSettings) -> TaughtNarrator:
        """Make the narrator that training starts from, from a preset, its parts, and torch's random state."""

    def load(self, directory: Path) -> TaughtNarrator:
        """Load a narrator folder; UserError for what is damaged."""

    def convert(self, source: Path, target: Path, dtype: Literal["float32", "bfloat16"]) -> None:
        """Write a narrator's folder again with weights of another type."""
