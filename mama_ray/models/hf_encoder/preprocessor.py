"""How a folder of transformers wants its pixels: the files of its image or video processor, read without it."""

from pathlib import Path
from typing import Any

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.model import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD
from mama_ray.models.weight_files import read_json

FILES = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
_PARTS = ("video_processor", "image_processor")  # of processor_config.json
_HALVES, _PLAIN = ([0.5] * 3, [0.5] * 3), ([0.0] * 3, [1.0] * 3)
_FILTERS = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
# What the processors of transformers take where a folder does not say: mean and std, resize, filter.
_DEFAULTS = {
    "clip": ((CLIP_PIXEL_MEAN, CLIP_PIXEL_STD), "center_crop", "bicubic"),
    "metaclip_2": ((CLIP_PIXEL_MEAN, CLIP_PIXEL_STD), "center_crop", "bicubic"),
    "siglip": (_HALVES, "squash", "bicubic"),
    "siglip2": (_HALVES, "squash", "bilinear"),
    "videoprism": (_PLAIN, "squash", "bicubic"),
    "pe_video": (_HALVES, "squash", "bilinear"),
}


def read_preprocessor(directory: Path) -> dict[str, Any]:
    """Return the fields of a folder's processor, {} where there is none."""
    for name in FILES:
        path = directory / name
        if not path.is_file():
            continue
        content = read_json(path)
        if name != FILES[-1]:
            return content
        for part in _PARTS:
            if isinstance(content.get(part), dict):
                return content[part]
    return {}


def pixel_fields(fields: dict[str, Any], model_type: str, *, source: str) -> dict[str, Any]:
    """Return pixel_mean, pixel_std, resize and interpolation of our config, and image_size where the fields say it.

    UserError for a step that our transforms do not have.
    """
    (mean, std), resize, interpolation = _DEFAULTS[model_type]
    if not fields.get("do_normalize", model_type != "videoprism"):
        mean, std = _PLAIN
    else:
        mean, std = fields.get("image_mean") or mean, fields.get("image_std") or std
    # Ours are of the full scale 255, whatever the processor makes of it before it normalises.
    full = 255 * float(fields.get("rescale_factor", 1 / 255)) if fields.get("do_rescale", True) else 255.0
    try:
        found = {"pixel_mean": [value / full for value in mean], "pixel_std": [value / full for value in std]}
    except TypeError as error:
        raise UserError(f"image_mean or image_std of {source}", got=(mean, std), wanted="three numbers each") from error
    number = fields.get("resample", 3 if interpolation == "bicubic" else 2)
    if number not in _FILTERS:
        raise UserError(f"{source} scales images in a way that is not known here", got=number, wanted="resample 2 or 3")
    found["interpolation"] = _FILTERS[number]
    size, side = _size(fields, source)
    if side is not None:
        resize = "center_crop" if "shortest_edge" in size else "squash"
        found["image_size"] = side
    return found | {"resize": resize}


def _size(fields: dict[str, Any], source: str) -> tuple[dict[str, Any], int | None]:
    """Return the fields that say the size, and the side of the square that they lead to."""
    size = fields.get("size")
    if isinstance(size, int):  # as old files have it
        size = {"shortest_edge": size} if fields.get("do_center_crop") else {"height": size, "width": size}
    if not isinstance(size, dict) or not size:
        return {}, None
    crop = fields.get("crop_size") if fields.get("do_center_crop") else None
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    scaled = [size[name] for name in ("shortest_edge", "height", "width") if name in size]
    sides = {*scaled, *(crop or {}).values()}
    is_square = len(sides) == 1 and all(isinstance(side, int) and side > 0 for side in sides)
    if not is_square or ("shortest_edge" in size and not crop):
        raise UserError(
            f"{source} makes images of a size that is not known here",
            got=f"size {size}, crop_size {crop}",
            wanted="a square: height and width, or the shortest edge and a crop of the same size",
        )
    return size, sides.pop()


def write_preprocessor(config: Any, image_processor: str | None) -> dict[str, Any]:
    """Return the content of preprocessor_config.json for a config of ours."""
    side = config.image_size
    is_cropped = config.resize == "center_crop"
    return {
        **({"image_processor_type": image_processor} if image_processor else {}),
        "do_resize": True,
        "size": {"shortest_edge": side} if is_cropped else {"height": side, "width": side},
        "resample": next(number for number, name in _FILTERS.items() if name == config.interpolation),
        **({"do_center_crop": True, "crop_size": {"height": side, "width": side}} if is_cropped else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.pixel_mean),
        "image_std": list(config.pixel_std),
        "do_convert_rgb": True,
    }
