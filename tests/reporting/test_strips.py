"""Filmstrips hold frames of the whole clip, in order."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mama_ray.reporting.strips import GAP_PX, spread, strip_data_uri


@pytest.mark.parametrize(("count", "wanted", "indices"), [(2, 4, [0, 1]), (4, 4, [0, 1, 2, 3]), (12, 4, [1, 4, 7, 10])])
def test_frames_are_spread_over_the_clip(count, wanted, indices):
    assert spread(count, wanted).tolist() == indices


def test_a_strip_shows_frames_in_time_order():
    frames = np.stack([np.full((24, 32, 3), level, np.uint8) for level in (10, 90, 170, 250)])
    uri = strip_data_uri(frames, height_px=48)
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
    assert image.size == (4 * 64 + 3 * GAP_PX, 48)
    levels = [image.getpixel((32 + place * (64 + GAP_PX), 24))[0] for place in range(4)]
    assert levels == pytest.approx([10, 90, 170, 250], abs=6)
