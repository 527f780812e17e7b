"""What a Hugging Face processor makes of the clips that a vision-language model is shown: their size, their tokens.

transformers is imported inside the functions: it takes seconds.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mama_ray.errors import UserError

_TRIAL_S = 100.0  # between frames: Qwen3-VL writes down when each is shown, and three digits are rarely more
_DEFAULT_SIDE = 336  # of LLaVA-1.5; for processors that take pictures of any size


def load_processor(folder: Path) -> Any:
    """Load the processor of a model folder; UserError where it is damaged or takes no pictures."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # Whatever a damaged tokenizer or processor file makes of it: there is no common class.
    except Exception as error:
        raise UserError("the model's processor cannot be loaded", got=f"{folder} ({error})") from error
    if not hasattr(processor, "image_processor"):
        raise UserError("the model's processor takes no pictures", got=f"{type(processor).__name__} of {folder}")
    return processor


def picture_side(processor: Any) -> int:
    """Return the pixels of the square that a processor makes of a picture; 336 where it takes any size."""
    images = processor.image_processor
    crop_size, size = getattr(images, "crop_size", None), getattr(images, "size", None)
    if _item(size, "longest_edge"):  # Qwen's two edges are bounds of the number of pixels
        return _DEFAULT_SIDE
    for edges in (crop_size, size):
        for key in ("height", "shortest_edge"):
            value = _item(edges, key)
            if isinstance(value, int) and 16 <= value <= 4096:
                return value
    return _DEFAULT_SIDE


def _item(size: Any, key: str) -> Any:
    return size.get(key) if hasattr(size, "get") else getattr(size, key, None)


def count_tokens(processor: Any, prompt: str, side: int, num_frames: int, folder: Path) -> int:
    """Return the tokens of a prompt with a square picture of `side` pixels, or with a video of so many such frames.

    No clip has more: a video's frames are at most as large. UserError where the processor refuses them.
    """
    from PIL import Image

    media: dict[str, Any] = {"images": Image.new("RGB", (side, side))}
    if num_frames:
        if getattr(processor, "video_processor", None) is None:
            raise UserError("the model's processor takes no videos", got=f"{type(processor).__name__} of {folder}")
        frames = np.zeros((num_frames, side, side, 3), np.uint8)
        media = {"videos": [frames], **video_arguments([_TRIAL_S * number for number in range(num_frames)])}
    try:
        inputs = processor(text=prompt, return_tensors="pt", **media)
    except Exception as error:  # a processor raises what its parts raise
        what = "prompt and video" if num_frames else "prompt and picture"
        raise UserError(f"the model's processor refuses {what}", got=f"{folder} ({error})") from error
    return inputs["input_ids"].shape[-1]


def video_arguments(times_s: list[float]) -> dict[str, Any]:
    """Return what a processor is told of a video beside its frames: that these are all, and when each is shown."""
    return {"do_sample_frames": False, "video_metadata": [video_metadata(times_s)]}


def video_metadata(times_s: list[float]) -> dict[str, Any]:
    """Return where the frames of a video are, in the words of Hugging Face's VideoMetadata.

    The clock is in milliseconds, so that the times are right for clips of a variable frame rate too: a frame's number
    divided by `fps` is its second, and the number of frames divided by the duration is the rate at which they are
    shown.
    """
    num_frames = len(times_s)
    spacing_s = (times_s[-1] - times_s[0]) / (num_frames - 1) if num_frames > 1 else 2 * times_s[0]
    duration_ms = max(num_frames, round(1000 * spacing_s * num_frames))
    return {
        "total_num_frames": duration_ms,
        "fps": 1000.0,
        "duration": duration_ms / 1000,
        "frames_indices": [round(1000 * time_s) for time_s in times_s],
    }
