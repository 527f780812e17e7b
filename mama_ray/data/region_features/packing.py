"""Features of frames and regions side by side in one array, as a batch carries them in place of pixels."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float


def pack_features(features: Mapping[str, np.ndarray]) -> Float[np.ndarray, "clips frames packed"]:
    """Put each frame's regions behind its feature: frames (clips, frames, d) and regions (clips, frames, R, e)."""
    regions = features["regions"]
    return np.concatenate([features["frames"], regions.reshape(*regions.shape[:2], -1)], axis=-1, dtype=np.float32)
