"""From a real video to VGT's features: the frames asked for, boxes in its own pixels, slots that follow objects."""

import numpy as np
import pytest

from mama_ray.data.region_features.boxes import link_regions
from mama_ray.data.region_features.clips import clip_frame_indices
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.folder import list_clips
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.features.extract import decode_pixels, extract_features
from mama_ray.features.frames import load_frame_encoder
from mama_ray.features.regions import load_region_detector
from tests.features.tiny_models import save_detector, save_resnet


@pytest.fixture(scope="module")
def video() -> bytes:
    corpus = CorpusConfig(num_train=2, num_meta=0, num_val=0, num_test=0)
    return generate_clip(corpus, *list_clips(corpus)[0]).video


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_resnet(folder / "resnet")
    save_detector(folder / "detr")
    (folder / "detr/preprocessor_config.json").write_text('{"size": {"shortest_edge": 48, "longest_edge": 96}}')
    return load_frame_encoder(folder / "resnet"), load_region_detector(folder / "detr", num_regions=5)


def test_features_of_a_video_are_those_of_its_frames_in_linked_order(video, models):
    frame_encoder, detector = models
    features = extract_features(decode_pixels(video, *models, num_clips=4, frames_per_clip=3), *models)
    decoder = VideoDecoder(video)
    indices = clip_frame_indices(decoder.num_frames, num_clips=4, frames_per_clip=3)
    assert (features.width, features.height) == (decoder.width, decoder.height)
    pixels = decoder.frames_by_index(indices.ravel())
    wanted = frame_encoder(pixels).reshape(4, 3, -1)
    np.testing.assert_allclose(features.frames, wanted, rtol=1e-4, atol=1e-5)
    found = detector(pixels)
    scale = np.array([decoder.width, decoder.height, decoder.width, decoder.height])
    boxes = found.boxes.reshape(4, 3, 5, 4) * scale - [0, 0, 1, 1]
    regions = found.features.reshape(4, 3, 5, -1)
    for clip in range(4):
        order = link_regions(regions[clip], boxes[clip])
        for frame in range(3):
            np.testing.assert_allclose(features.boxes[clip, frame], boxes[clip, frame][order[frame]], atol=1e-3)
            np.testing.assert_allclose(
                features.regions[clip, frame], regions[clip, frame][order[frame]], rtol=1e-3, atol=1e-4
            )


def test_a_video_with_fewer_frames_than_clips_is_told_in_one_line(video, models):
    num_frames = VideoDecoder(video).num_frames
    for is_guarded in (True, False):
        with pytest.raises(DecodeError, match=f"fewer frames than clips: got {num_frames} frames"):
            decode_pixels(video, *models, num_clips=num_frames + 1, frames_per_clip=2, is_guarded=is_guarded)
