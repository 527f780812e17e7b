"""What a command line says of videos, refused where it would have no effect."""

import pytest
from pydantic import ValidationError

from mama_ray.config import Config
from mama_ray.data.video.settings import SceneConfig, TranscodeConfig, WindowConfig
from mama_ray.data.video.views import ViewConfig


def test_fewest_frames_are_refused_where_no_rate_counts_them():
    assert WindowConfig(fps=10, min_frames=1).min_frames == 1
    assert WindowConfig(min_frames=4).fps is None  # the default, as a recorded config says it
    with pytest.raises(ValidationError, match="min_frames 1 has no meaning without fps"):
        WindowConfig(min_frames=1)


@pytest.mark.parametrize(
    ("config", "given", "told"),
    [
        (SceneConfig, {"max_s": 20.0}, "max_s have no meaning without detector"),
        (SceneConfig, {"threshold": 3.0, "min_s": 1.0}, "threshold, min_s have no meaning without detector"),
        (TranscodeConfig, {"fps": 4}, "fps have no meaning without short_side"),
        (ViewConfig, {"window_frames": 16}, "window_frames 16 has no meaning without num_windows"),
        (ViewConfig, {"num_crops": 3, "window_frames": 16}, "window_frames 16 has no meaning without num_windows"),
        (ViewConfig, {"pool": "max"}, "pool max has no meaning for one view"),
    ],
)
def test_what_a_switch_that_is_off_leaves_idle_is_refused_and_a_recorded_config_is_not(
    config: type[Config], given: dict, told: str
):
    with pytest.raises(ValidationError, match=told):
        config(**given)
    assert config(**config().model_dump()) == config()


def test_what_has_an_effect_is_taken():
    assert SceneConfig(detector="content", max_s=20.0).max_s == 20
    assert ViewConfig(num_crops=3, pool="max").num_views == 3
    assert ViewConfig(num_windows=2, window_frames=16).num_views == 2
