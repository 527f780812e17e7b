"""A corpus in memory: decoded frames in one file that all runs map, captions and truth from the generator."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from mama_ray.data.batch import ClipBatch
from mama_ray.data.classes.names import HAS_GENERATED
from mama_ray.data.clip import Clip
from mama_ray.data.synthetic.config import CorpusConfig, Split
from mama_ray.data.synthetic.folder import VIDEOS_FOLDER, list_clips
from mama_ray.data.synthetic.generate import clip_id_of, describe_clip
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.storage.places import whole_file

FRAMES_NAME = "frames.npy"
_ENCODED_AT_ONCE = 128
_KEPT_SPLITS = 64  # of runs that come one after another in a process, most with the same few corpora


def write_frames(config: CorpusConfig, folder: Path, *, num_frames: int) -> Path:
    """Decode all clips of a corpus's folder into `frames.npy`, uint8 (clips, frames, height, width, 3), in the
    corpus's order: the centres of equal segments, as evaluation reads them. A file that is there is kept.
    """
    path = folder / FRAMES_NAME
    if not path.exists():
        transform = TransformConfig(image_size=config.image_size)
        frames = [
            load_clip_frames(
                folder / VIDEOS_FOLDER / f"{clip_id_of(config, split, number)}.mp4",
                num_frames=num_frames,
                transform=transform,
            )
            for split, number in list_clips(config)
        ]
        with whole_file(path) as part, part.open("wb") as file:
            np.save(file, np.stack(frames), allow_pickle=False)
    return path


@dataclass(frozen=True)
class ClipArrays:
    """The clips of one split: axis 0 of `frames` and `token_ids` is the clip.

    `generated` are the token ids of a generated caption by place, for the clips that have one; `columns` what a weight
    net sees of a clip beside its loss.
    """

    frames: UInt8[np.ndarray, "clips frames height width 3"]
    token_ids: np.ndarray
    clips: tuple[Clip, ...]
    generated: Mapping[int, np.ndarray]
    columns: Float32[np.ndarray, "clips columns"] | None = None

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def kinds(self) -> np.ndarray:
        """What was done to each clip's caption."""
        return np.array([clip.truth["kind"] for clip in self.clips])

    @property
    def topics(self) -> np.ndarray:
        """The topic of each clip."""
        return np.array([clip.topic for clip in self.clips])

    def select(self, places: np.ndarray) -> "ClipArrays":
        """Return the clips at `places`."""
        generated = {new: self.generated[old] for new, old in enumerate(places.tolist()) if old in self.generated}
        clips = tuple(self.clips[place] for place in places.tolist())
        return ClipArrays(self.frames[places], self.token_ids[places], clips, generated)

    def joined(self, other: "ClipArrays", copies: int) -> "ClipArrays":
        """Return these clips and behind them `other`, so many times: each counts as a clip of its own."""
        parts = [self] + [other] * copies
        starts = np.cumsum([0, *(len(part) for part in parts)])
        generated = {
            int(start) + place: ids
            for start, part in zip(starts, parts, strict=False)
            for place, ids in part.generated.items()
        }
        frames, token_ids = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("frames", "token_ids")
        )
        return ClipArrays(frames, token_ids, tuple(clip for part in parts for clip in part.clips), generated)

    def batch(self, places: np.ndarray, *, use_generated: np.ndarray | None = None, beside: bool = False) -> ClipBatch:
        """Return the clips at `places`; where `use_generated` is True and there is one, with the generated caption.

        beside: generated captions do not take the place of clips' own but stand beside them.
        """
        own = self.token_ids[places]
        has_generated = np.array([place in self.generated for place in places.tolist()], bool)
        wants = has_generated if use_generated is None else has_generated & use_generated
        told = own.copy()
        if beside or use_generated is not None:
            for row in np.flatnonzero(wants):
                told[row] = self.generated[int(places[row])]
        targets = {HAS_GENERATED: torch.from_numpy(has_generated)} if beside else {}
        return ClipBatch(
            torch.from_numpy(np.ascontiguousarray(self.frames[places])),
            torch.from_numpy(own if beside else told),
            torch.from_numpy(places.astype(np.int64)),
            torch.ones(len(places), dtype=torch.bool),
            targets,
            weight_inputs=None if self.columns is None else torch.from_numpy(self.columns[places]),
            generated_ids=torch.from_numpy(told) if beside else None,
        )


@torch.no_grad()
def encode_clips(model: DualEncoder, clips: ClipArrays) -> tuple[Float32[np.ndarray, "clips dim"], ...]:
    """Return the features of the clips and of their captions, by the model in the mode that it is in."""
    parts = []
    for start in range(0, len(clips), _ENCODED_AT_ONCE):
        batch = clips.batch(np.arange(start, min(start + _ENCODED_AT_ONCE, len(clips))))
        parts.append(model(batch.frames, batch.token_ids))
    videos, texts = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return videos, texts


def load_split(
    config: CorpusConfig, split: Split, frames_path: Path, tokenizer: Tokenizer, captions: Mapping[str, str]
) -> ClipArrays:
    """Return a split with the captions that `config` gives it, and the frames of its pictures' file.

    captions: generated ones by clip id. Raises UserError for a frames file of another corpus. Later calls for the same
    share what comes back, which cannot be written to.
    """
    clips = _load_split(config, split, frames_path, tokenizer)
    found = {place: captions[clip.clip_id] for place, clip in enumerate(clips.clips) if clip.clip_id in captions}
    return replace(clips, generated=dict(zip(found, tokenizer(list(found.values())), strict=True))) if found else clips


@lru_cache(maxsize=_KEPT_SPLITS)
def _load_split(config: CorpusConfig, split: Split, frames_path: Path, tokenizer: Tokenizer) -> ClipArrays:
    frames = np.load(frames_path, mmap_mode="r", allow_pickle=False)
    if len(frames) != sum(config.num_clips.values()):
        raise UserError("frames of another corpus", got=f"{frames_path}: {len(frames)} clips", remedy="remove the file")
    start = sum(count for name, count in config.num_clips.items() if _comes_before(config, name, split))
    clips = tuple(describe_clip(config, split, number) for number in range(config.num_clips[split]))
    token_ids = tokenizer([clip.captions[0].text for clip in clips])
    token_ids.setflags(write=False)
    return ClipArrays(frames[start : start + len(clips)], token_ids, clips, {})


def _comes_before(config: CorpusConfig, name: str, split: str) -> bool:
    names = list(config.num_clips)
    return names.index(name) < names.index(split)
