"""Queries and clips through the towers."""

from pathlib import Path

import numpy as np
import pytest

from mama_ray.encoder.decoding import VideoError
from mama_ray.errors import UserError
from mama_ray.search.towers import Towers
from tests.data.video.video_factory import make_video


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "a.mp4"
    path.write_bytes(make_video(num_frames=7, width=64, height=48))
    return path


@pytest.fixture(scope="module")
def towers(model_folder) -> Towers:
    return Towers.load(str(model_folder), num_processes=1, batch_size=4)


def test_a_video_has_the_same_feature_as_a_file_and_as_bytes(towers, video, encoder):
    as_file, as_bytes = towers.embed_video(video), towers.embed_video(video.read_bytes())
    np.testing.assert_array_equal(as_file, as_bytes)
    (expected,) = encoder.encode_videos([video], progress=False).features
    np.testing.assert_array_equal(as_file, expected)
    assert towers.model_hash == encoder.features_id


def test_what_is_no_video_is_told_beside_the_others(towers, video):
    good = video.read_bytes()
    found = towers.embed_videos([good, b"no video", good, b"", good])
    assert [isinstance(one, VideoError) for one in found] == [False, True, False, True, False]
    np.testing.assert_array_equal(found[0], found[4])
    with pytest.raises(UserError, match="cannot be used"):
        towers.embed_video(b"no video")


def test_texts_have_unit_features_of_the_videos_length(towers):
    features = towers.embed_texts(["a red thing moves", "a blue thing"])
    assert features.shape == (2, towers.dim)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
