"""What the card says of speed is what the times say."""

import pytest

from mama_ray.orchestration.captioning.report import what_limits


@pytest.mark.parametrize(
    ("busy_share", "decode_s", "caption_s", "told"),
    [
        (0.78, 96.0, 3.0, "In the rest they waited for clips: decoding holds the job up, not the engines."),
        (0.97, 96.0, 3.0, ""),  # an engine with one caption at a time is busy as well
        (0.97, 10.0, 89.0, ""),
        (None, 96.0, 3.0, ""),
    ],
)
def test_idle_engines_waited_for_the_slower_of_the_stages_before_them(busy_share, decode_s, caption_s, told):
    stages = {"read": 0.5, "decode and grid": decode_s, "waiting for and in the engine": caption_s, "commit": 0.5}
    assert what_limits(busy_share, stages) == told


def test_a_slow_storage_is_told():
    assert "reading from the storage holds the job up" in what_limits(0.5, {"read": 8.0, "decode and grid": 1.0})
