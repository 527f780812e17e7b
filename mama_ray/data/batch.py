"""A batch of decoded clips as tensors: what readers yield and what a training step takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mama_ray.data.plan import PADDING_ROW as PADDING_ROW

# Of an array's name, among those of a batch.
TARGET_PREFIX = "target/"
QUESTION_PREFIX = "question/"
CLIPS = "clips"
WEIGHT_INPUTS = "weight_inputs"
GENERATED_IDS = "generated_ids"


@dataclass(frozen=True)
class ClipBatch:
    """Decoded clips with one caption each; axis 0 is the clip, or with questions the (clip, question) pair.

    `rows` are the clips' row numbers in their index; a clip that could not be read has `valid` False and black frames,
    and so has padding, whose row is PADDING_ROW. `targets` are what a task's loss reads, by name, axis 0 the clip;
    `question` is what a model that answers reads of the clip's question (`models/answering.py`), likewise.
    Where several questions may be about one clip, `clips` are the numbers of the pairs' clips, a clip's pairs stand
    side by side, and its frames are there once: `places` says for each pair which of them are its.
    Where clips are learned from by two texts, `generated_ids` are the generated captions, of a clip without one its own
    text once more; which have one is among the targets.
    """

    frames: UInt8[Tensor, "clips frames height width channels"]
    token_ids: Int[Tensor, "batch tokens"]
    rows: Int[Tensor, "batch"]
    valid: Bool[Tensor, "batch"]
    targets: dict[str, Tensor] = field(default_factory=dict)
    question: dict[str, Tensor] = field(default_factory=dict)
    clips: Int[Tensor, "batch"] | None = None
    places: Int[Tensor, "batch"] | None = None  # it stays in host memory: a batch is cut by it
    weight_inputs: Float[Tensor, "batch columns"] | None = None
    generated_ids: Int[Tensor, "batch tokens"] | None = None

    def __len__(self) -> int:
        return self.rows.shape[0]

    def for_questions(self, of_clips: Tensor) -> Tensor:
        """Repeat what there is of each clip, axis 0, for its questions."""
        return of_clips if self.places is None else of_clips.index_select(0, self.places.to(of_clips.device))

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Copy to a device; pinned host memory makes the copy asynchronous."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def __getitem__(self, item: slice) -> "ClipBatch":
        part = self._map(lambda tensor: tensor[item])
        if self.places is None:
            return part
        places = self.places[item]
        first, last = (int(places[0]), int(places[-1])) if len(places) else (0, -1)
        return replace(part, frames=self.frames[first : last + 1], places=places - first)

    def select(self, rows: Int[Tensor, " chosen"]) -> "ClipBatch":
        """Return the clips, or pairs, of these rows, which are in order and in host memory."""
        clips, places = rows, None
        if self.places is not None:
            clips, places = self.places[rows].unique(return_inverse=True)
        frames = self.frames.index_select(0, clips.to(self.frames.device))
        part = replace(self, frames=self.rows)._map(lambda tensor: tensor.index_select(0, rows.to(tensor.device)))
        return replace(part, frames=frames, places=places)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "ClipBatch":
        targets, question = (
            {name: change(tensor) for name, tensor in group.items()} for group in (self.targets, self.question)
        )
        fields = (self.frames, self.token_ids, self.rows, self.valid)
        optional = self.clips, self.weight_inputs, self.generated_ids
        clips, inputs, generated = (None if part is None else change(part) for part in optional)
        return ClipBatch(*map(change, fields), targets, question, clips, self.places, inputs, generated)


def to_clip_batch(arrays: Mapping[str, np.ndarray]) -> ClipBatch:
    """Wrap the arrays of a batch as tensors; those named TARGET_PREFIX and more are its targets, those named
    QUESTION_PREFIX and more its question.

    Arrays from shared memory are read-only and must be copied before torch may own them.
    """

    def wrap(name: str) -> Tensor:
        return torch.from_numpy(np.array(arrays[name]))

    def group(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): wrap(name) for name in arrays if name.startswith(prefix)}

    frames, places = wrap("frames"), None
    if CLIPS in arrays:
        places = places_of(arrays[CLIPS])
        frames = frames[: int(places.max()) + 1]  # the rest is filling
    return ClipBatch(
        frames=frames,
        token_ids=wrap("token_ids"),
        rows=wrap("rows"),
        valid=wrap("valid"),
        targets=group(TARGET_PREFIX),
        question=group(QUESTION_PREFIX),
        clips=None if places is None else wrap(CLIPS),
        weight_inputs=wrap(WEIGHT_INPUTS) if WEIGHT_INPUTS in arrays else None,
        generated_ids=wrap(GENERATED_IDS) if GENERATED_IDS in arrays else None,
        places=places,
    )


def places_of(clips: np.ndarray) -> Int[Tensor, "batch"]:
    """Return which of the frames of a batch's clips, each there once, are each pair's; padding has the last one's."""
    is_next = np.diff(clips, prepend=clips[:1]) != 0
    return torch.from_numpy(np.cumsum(is_next & (clips != PADDING_ROW)))


def pad_batch(arrays: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Return the arrays of a batch, axis 0 the clip, with padding up to `size` rows; without need nothing is copied.

    Padding is not valid, so it has no loss, no weight and is nobody's negative; a batch may consist of it.
    """
    padded = {}
    for name, values in arrays.items():
        missing = size - len(values)
        if missing < 0:
            raise ValueError(f"batch of {len(values)} rows in {name} cannot be padded to {size}")
        fill = PADDING_ROW if name in ("rows", CLIPS) else 0
        filling = np.full((missing, *values.shape[1:]), fill, values.dtype)
        padded[name] = np.concatenate([values, filling]) if missing else values
    return padded
