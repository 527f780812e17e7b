"""Regions of a frame: the boxes a detector is surest of, and the mean of its ResNet's last map in each.

VGT's own come from bottom-up attention, which cannot be run without its compiled code. Here a DETR or an RT-DETR finds
the boxes; the feature is that of bottom-up attention's kind, 2048 channels of a ResNet pooled over the box.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from mama_ray.errors import UserError
from mama_ray.features.pictures import PictureInput, read_picture_input
from mama_ray.features.transformers_folder import load_strictly, read_model_type

# By model_type: what a folder without preprocessor_config.json wants.
DETECTORS = {
    "detr": PictureInput(short_side=800, long_side=1333),
    "rt_detr": PictureInput(height=640, width=640, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}
_POOLED = 7  # points of a box in each direction, as RoI pooling has bins
_FRAMES_AT_A_TIME = 4


class Regions(NamedTuple):
    """Regions of frames, the surest first; boxes are x1, y1, x2, y2 from 0 to 1."""

    features: Float[np.ndarray, "frames r d"]
    boxes: Float[np.ndarray, "frames r 4"]


class RegionDetector:
    """Frames to their regions, without gradient."""

    def __init__(
        self, model: Any, pictures: PictureInput, *, num_regions: int, device: torch.device | str = "cpu"
    ) -> None:
        """Take a detector. UserError where it looks for fewer regions than asked for."""
        if model.config.num_queries < num_regions:
            raise UserError(
                "the detector finds fewer regions than asked for", got=model.config.num_queries, wanted=num_regions
            )
        self._model, self._pictures, self._device = model.eval().to(device), pictures, device
        self._num_regions = num_regions
        self._maps: list[Tensor] = []
        model.model.backbone.register_forward_hook(self._keep_map)

    @property
    def decoded_side(self) -> int:
        """Shorter side of the frames that it would see whole."""
        return self._pictures.decoded_side

    @property
    def dim(self) -> int:
        """Channels of a region's feature."""
        return int(self._model.model.backbone.intermediate_channel_sizes[-1])

    @torch.no_grad()
    def __call__(self, frames: UInt8[np.ndarray, "frames height width 3"]) -> Regions:
        found = []
        for start in range(0, len(frames), _FRAMES_AT_A_TIME):
            found.append(self._detect(self._pictures.prepare(frames[start : start + _FRAMES_AT_A_TIME])))
        return Regions(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def _detect(self, pixels: Float[Tensor, "frames 3 height width"]) -> Regions:
        out = self._model(pixel_values=pixels.to(self._device))
        features = self._maps.pop()
        order = _sureness(out.logits, self._model.config.model_type).topk(self._num_regions, dim=1).indices
        boxes = out.pred_boxes.gather(1, order[:, :, None].expand(-1, -1, 4)).float()
        boxes = _corners(boxes).clamp(0, 1)
        return Regions(pool_boxes(features.float(), boxes).cpu().numpy(), boxes.cpu().numpy())

    def _keep_map(self, module: object, inputs: object, maps: list) -> None:
        self._maps = [maps[-1][0]]


def load_region_detector(source: Path, *, num_regions: int, device: torch.device | str = "cpu") -> RegionDetector:
    """Load a folder of a `transformers` DETR or RT-DETR. UserError for another kind, and for what does not fit."""
    model_type = read_model_type(source)
    if model_type not in DETECTORS:
        raise UserError(f"{source} is no detector known here", got=model_type, wanted=" or ".join(DETECTORS))
    from transformers import DetrForObjectDetection, RTDetrForObjectDetection

    model_class = {"detr": DetrForObjectDetection, "rt_detr": RTDetrForObjectDetection}[model_type]
    pictures = read_picture_input(source, DETECTORS[model_type])
    return RegionDetector(load_strictly(model_class, source), pictures, num_regions=num_regions, device=device)


def pool_boxes(maps: Float[Tensor, "frames d h w"], boxes: Float[Tensor, "frames r 4"]) -> Float[Tensor, "frames r d"]:
    """Return the mean over each box of the map between its cells: 7 x 7 points, the middles of equal parts."""
    steps = (torch.arange(_POOLED, device=boxes.device) + 0.5) / _POOLED
    low, high = boxes[..., :2, None], boxes[..., 2:, None]
    across = low + (high - low) * steps  # frames r 2 points
    x, y = across[:, :, 0], across[:, :, 1]
    grid = torch.stack(
        [x[:, :, None, :].expand(-1, -1, _POOLED, -1), y[:, :, :, None].expand(-1, -1, -1, _POOLED)], dim=-1
    )
    grid = rearrange(2 * grid - 1, "frames r y x two -> frames r (y x) two")
    points = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return rearrange(points.mean(dim=-1), "frames d r -> frames r d")


def _sureness(logits: Float[Tensor, "frames queries classes"], model_type: str) -> Float[Tensor, "frames queries"]:
    """Return a score per query: DETR's last class is none, RT-DETR's are apart from each other."""
    if model_type == "detr":
        return logits.softmax(dim=-1)[..., :-1].amax(dim=-1)
    return logits.sigmoid().amax(dim=-1)


def _corners(boxes: Float[Tensor, "frames r 4"]) -> Float[Tensor, "frames r 4"]:
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)
