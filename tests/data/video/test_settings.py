"""What a command line says of videos, refused where it would have no effect."""

import pytest
from pydantic import ValidationError

from mama_ray.data.video.settings import WindowConfig


def test_fewest_frames_are_refused_where_no_rate_counts_them():
    assert WindowConfig(fps=10, min_frames=1).min_frames == 1
    assert WindowConfig(min_frames=4).fps is None  # the default, as a recorded config says it
    with pytest.raises(ValidationError, match="min_frames 1 has no meaning without fps"):
        WindowConfig(min_frames=1)
