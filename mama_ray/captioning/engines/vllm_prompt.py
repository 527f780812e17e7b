"""From what is shown of a clip to the prompt that vLLM takes: one picture, or one video with its metadata.

The frames of a video are all that is to be seen: processors that would sample some of them are told not to. When each
frame is shown goes in too, as each family wants it: Qwen3-VL reads it from the video's metadata and writes it into the
prompt; Qwen2.5-VL's processor makes its positions in time of it, but vLLM hands it no metadata, so it is an argument
of the processor there; LLaVA-OneVision and Qwen2-VL know no time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mama_ray.captioning.engines.processor import video_arguments, video_metadata
from mama_ray.captioning.engines.protocol import GRID, VIDEO, Shown
from mama_ray.captioning.pictures.grid import hash_pixels

_TIMES_IN_METADATA = ("qwen3_vl",)
_BLANK_SIDE = 64


@dataclass(frozen=True)
class LargestPicture:
    """The pixels of the side of the square pictures that an engine is shown; None is of any."""

    side: int | None = None

    def limits(self) -> dict[str, Any]:
        """Return what vLLM has to expect in a prompt; the size is what it reserves memory for."""
        size = {} if self.side is None else {"width": self.side, "height": self.side}
        return {"image": {"count": 1, **size}, "video": 0}


@dataclass(frozen=True)
class LargestVideo:
    """The number of frames of the videos that an engine is shown, and the pixels of their longer side at most."""

    num_frames: int
    side: int

    def limits(self) -> dict[str, Any]:
        """Return what vLLM has to expect in a prompt; the sizes are what it reserves memory for."""
        largest = {"count": 1, "num_frames": self.num_frames, "width": self.side, "height": self.side}
        return {"image": 0, "video": largest}


def refusal_of(shown: Shown, largest: LargestPicture | LargestVideo) -> str:
    """Return why an engine that was started for grids, or for videos, does not take this; "" where it does."""
    kind = VIDEO if isinstance(largest, LargestVideo) else GRID
    if shown.kind != kind:
        return f"vLLM is shown a {kind}, not {shown.kind}"
    if kind == VIDEO and len(shown.times_s or ()) != len(shown.content):
        return f"a video of {len(shown.content)} frames came with the times of {len(shown.times_s or ())}"
    return ""


def vllm_prompt(text: str, shown: Shown, model_type: str, identity: str | None = None) -> dict[str, Any]:
    """Return a request's prompt. `identity` names what is shown, which saves vLLM from hashing its pixels."""
    if shown.kind == GRID:
        from PIL import Image

        prompt = {"prompt": text, "multi_modal_data": {"image": Image.fromarray(shown.content)}}
        return prompt if identity is None else prompt | {"multi_modal_uuids": {"image": [identity]}}
    assert shown.times_s is not None  # `refusal_of` was asked
    times_s = list(shown.times_s)
    metadata = video_metadata(times_s) | {"do_sample_frames": False, "video_backend": "pyav"}
    prompt = {"prompt": text, "multi_modal_data": {"video": [(shown.content, metadata)]}}
    if model_type not in _TIMES_IN_METADATA:
        prompt["mm_processor_kwargs"] = video_arguments(times_s)
    return prompt if identity is None else prompt | {"multi_modal_uuids": {"video": [identity]}}


def blank_shown(largest: LargestPicture | LargestVideo) -> Shown:
    """Return something small to show an engine while it warms up."""
    if isinstance(largest, LargestPicture):
        pixels = np.zeros((_BLANK_SIDE, _BLANK_SIDE, 3), np.uint8)
        return Shown(GRID, pixels, hash_pixels(pixels))
    pixels = np.zeros((largest.num_frames, _BLANK_SIDE, _BLANK_SIDE, 3), np.uint8)
    return Shown(VIDEO, pixels, hash_pixels(pixels), tuple(float(number) for number in range(largest.num_frames)))
