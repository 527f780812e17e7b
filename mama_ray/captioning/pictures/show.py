"""What a captioner is shown of one clip, in each of the three ways, with the record of what is in it.

`show_clip` decodes a clip. Whoever has frames already, as of a part of a longer video, gives them to `arrange_frames`:
`ShowConfig` says how many it takes and of what size. Both ways end in the same function, so the pixels of a clip do not
depend on where its frames came from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8

from mama_ray.captioning.pictures.grid import GridConfig, hash_pixels, make_grid
from mama_ray.captioning.pictures.keyframes import choose_key_frames
from mama_ray.captioning.pictures.settings import FRAMES, GRID, VIDEO, ClipGridConfig, ShownAs
from mama_ray.data.video import guarded, sampled
from mama_ray.data.video.settings import DecodeConfig, Interpolation

_SHEET_SIDE = 480


@dataclass(frozen=True)
class ShowConfig:
    """How clips are shown to one captioner; picklable and small.

    Attributes:
        kind: GRID, FRAMES or VIDEO.
        side: pixels: of the square of a grid and of frames, of the longer side of a video's frames at most.
        num_frames: of frames and video; 0 for a grid, whose layout says it.
        grid: key frames and layout of a grid.
        decode: limits of the decoder.
        interpolation: the filter that scales frames.
    """

    kind: ShownAs
    side: int
    num_frames: int = 0
    grid: ClipGridConfig = field(default_factory=ClipGridConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    interpolation: Interpolation = "bicubic"

    @property
    def num_indices(self) -> int:
        """Frames that a caption's row names."""
        return self.grid.layout.num_cells if self.kind == GRID else self.num_frames

    @property
    def num_candidates(self) -> int:
        """Frames that `arrange_frames` takes: a grid's key frames are chosen from so many, or all where a clip has
        fewer; of the other kinds exactly these are shown, the centres of as many equal parts of the clip.
        """
        return self.grid.num_candidates if self.kind == GRID else self.num_frames

    @property
    def decoded_size(self) -> Mapping:
        """The size of those frames, in the words of `VideoDecoder`."""
        layout = self.grid.layout
        if self.kind == GRID:
            return {"fit": (self.side // layout.columns, self.side // layout.rows)}
        if self.kind == FRAMES and self.interpolation != "bicubic":  # else it is the decoder's
            from mama_ray.data.video.loading import decoded_size  # torch, which the other kinds do without
            from mama_ray.data.video.transforms import TransformConfig

            transform = TransformConfig(image_size=self.side, interpolation=self.interpolation)
            return decoded_size(transform, at_random=False)
        return {"short_side" if self.kind == FRAMES else "long_side": self.side}

    def blank(self) -> UInt8[np.ndarray, "*sizes 3"]:
        """Return black content, in the size that all of this kind have; that of a video may be any, and is small."""
        square = (1, 1, 3) if self.kind == VIDEO else (self.side, self.side, 3)
        return np.zeros(square if self.kind == GRID else (self.num_frames, *square), np.uint8)


@dataclass(frozen=True)
class ShownClip:
    """What an engine is shown of one clip.

    Attributes:
        content: uint8, as `Shown` has it: (side, side, 3) of a grid, (frames, height, width, 3) of the other kinds.
        sha256: of the content, as `hash_pixels` gives it.
        frame_indices: int64 (frames,), ascending numbers of the clip's frames.
        num_filled: frames that the method of choosing left to evenly spread or repeated ones.
        times_s: float64 (frames,), seconds from the clip's start to each frame; None for a grid.
        read_s: seconds that its bytes took from the storage.
    """

    content: UInt8[np.ndarray, "*sizes 3"]
    sha256: str
    frame_indices: Int64[np.ndarray, " frames"]
    num_filled: int
    times_s: Float[np.ndarray, " frames"] | None = None
    read_s: float = 0.0


def show_clip(data: bytes | str | Path, how: ShowConfig, *, is_guarded: bool = True) -> ShownClip:
    """Decode a clip and return what a captioner is shown of it.

    Decoding is done in a process of its own, unless `is_guarded` says that this one may be lost. Raises DecodeError
    with a readable reason for a video that cannot be used.
    """
    decoder = guarded if is_guarded else sampled
    if how.kind == GRID:
        fit = how.decoded_size["fit"]
        frames, indices = decoder.spread_frames(data, num_frames=how.num_candidates, fit=fit, decode=how.decode)
        return arrange_frames(frames, indices, None, how)
    frames, indices, times_s = decoder.located_frames(
        data, num_frames=how.num_frames, size=how.decoded_size, decode=how.decode
    )
    return arrange_frames(frames, indices, times_s, how)


def arrange_frames(
    frames: UInt8[np.ndarray, "frames height width 3"],
    frame_indices: Int64[np.ndarray, " frames"],
    times_s: Float[np.ndarray, " frames"] | None,
    how: ShowConfig,
) -> ShownClip:
    """Return what a captioner is shown of decoded frames.

    `frames` are `how.num_candidates` of the clip in the size that `how.decoded_size` says, `frame_indices` their
    numbers, ascending, `times_s` their seconds from the clip's start (None for a grid). ValueError for another number
    of frames than is shown.
    """
    if how.kind == GRID:
        chosen = choose_key_frames(frames, how.grid.key_frames)
        pixels = make_grid(frames[chosen.indices], how.grid.layout, how.side)
        return ShownClip(pixels, hash_pixels(pixels), frame_indices[chosen.indices], chosen.num_filled)
    if len(frames) != how.num_frames or times_s is None:
        raise ValueError(f"frames of a clip: got {len(frames)}, wanted {how.num_frames} with their times")
    if how.kind == FRAMES:
        from mama_ray.data.video.transforms import center_crop  # torch, which the other kinds do without

        frames = center_crop(frames, how.side, how.interpolation)
    num_filled = how.num_frames - len(np.unique(frame_indices))
    return ShownClip(frames, hash_pixels(frames), frame_indices, num_filled, times_s)


def contact_sheet(
    content: UInt8[np.ndarray, "*sizes 3"], side: int = _SHEET_SIDE
) -> UInt8[np.ndarray, "height width 3"]:
    """Return what was shown as one picture for people: a grid as it is, frames in rows, thinned out to a size."""
    if content.ndim == 3:
        return content
    num_frames, height, width, _ = content.shape
    columns = int(np.ceil(np.sqrt(num_frames)))
    rows = -(-num_frames // columns)
    step = max(1, -(-max(columns * width, rows * height) // side))
    small = content[:, ::step, ::step]
    blank = np.zeros((rows * columns - num_frames, *small.shape[1:]), np.uint8)
    return make_grid(np.concatenate([small, blank]), GridConfig(rows=rows, columns=columns))
