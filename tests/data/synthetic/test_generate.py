"""A generated clip: the same bytes every time, real H.264, and pictures that show what the facts say."""

import io
import subprocess
import sys

import av
import numpy as np
import pytest

from mama_ray.data.clip import clip_from_json, clip_to_json
from mama_ray.data.synthetic.config import CorpusConfig, LabelRate, corpus_hash
from mama_ray.data.synthetic.encode import encode_mp4
from mama_ray.data.synthetic.generate import describe_clip, generate_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.probe import probe_video
from mama_ray.errors import UserError

CONFIGS = [CorpusConfig(level="simple"), CorpusConfig(level="full", num_frames=12, image_size=64)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.level)
@pytest.mark.parametrize("split", ["train", "meta", "val", "test"])
def test_a_clip_is_a_pure_function_of_config_split_and_number(config, split):
    generate_clip(config, "train", 5)
    again = generate_clip(config.model_copy(), split, 3)
    assert generate_clip(config, split, 3) == again


def test_another_process_makes_the_same_bytes():
    program = (
        "import hashlib; from mama_ray.data.synthetic.config import CorpusConfig;"
        "from mama_ray.data.synthetic.generate import generate_clip;"
        "print(hashlib.sha256(generate_clip(CorpusConfig(), 'train', 7).video).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in "ab"]
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.level)
def test_the_video_is_real_h264_of_the_asked_size_and_length(config):
    generated = generate_clip(config, "train", 0)
    info = probe_video(generated.video)
    assert (info.codec, info.width, info.height) == ("h264", config.image_size, config.image_size)
    assert (info.num_frames, info.fps) == (config.num_frames, config.fps)
    assert info.duration_s == pytest.approx(config.duration_s)
    assert (generated.clip.start_s, generated.clip.end_s) == (0.0, config.duration_s)
    with av.open(io.BytesIO(generated.video)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert "creation_time" not in container.metadata


def test_no_two_clips_of_any_splits_share_an_id_or_their_pixels():
    config = CorpusConfig(num_train=60, num_meta=30, num_val=30, num_test=30)
    clips = [generate_clip(config, split, n) for split, count in config.num_clips.items() for n in range(count)]
    assert len({generated.clip.clip_id for generated in clips}) == 150
    assert len({generated.video for generated in clips}) == 150


def test_a_clip_survives_its_json():
    for number in range(20):
        clip = describe_clip(CONFIGS[1], "train", number)
        assert clip_from_json(clip_to_json(clip)) == clip


def shown_pixels(clip) -> np.ndarray:
    """Where each frame is brightly coloured or white, which no background is: (frames, height, width)."""
    frames = VideoDecoder(clip.video).frames_at(np.arange(8) / 8 + 1 / 16).astype(int)
    return (frames.max(axis=-1) - frames.min(axis=-1) > 70) | (frames.min(axis=-1) > 180)


def middles(shown: np.ndarray) -> np.ndarray:
    return np.array([np.argwhere(frame).mean(axis=0)[::-1] for frame in shown])


def clips_with(motion: str, count: int = 6) -> list:
    config = CorpusConfig(num_test=512)
    numbers = (
        n for n in range(512) if describe_clip(config, "test", n).truth["facts"]["objects"][0]["motion"] == motion
    )
    return [generate_clip(config, "test", next(numbers)) for _ in range(count)]


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_a_moving_object_goes_where_its_facts_say(motion, axis, sign):
    for clip in clips_with(motion):
        way = np.diff(middles(shown_pixels(clip))[:, axis]) * sign
        assert way.sum() > 15
        assert (way > -0.5).all()


@pytest.mark.parametrize(("motion", "sign"), [("grows", 1), ("shrinks", -1)])
def test_a_growing_object_grows_and_a_shrinking_one_shrinks(motion, sign):
    for clip in clips_with(motion):
        areas = shown_pixels(clip).sum(axis=(1, 2))
        assert (np.diff(areas) * sign > 0).all()


def test_a_blinking_object_is_away_in_half_of_the_frames():
    for clip in clips_with("blinks"):
        areas = shown_pixels(clip).sum(axis=(1, 2))
        assert (areas > 20).tolist() == [True, True, False, False] * 2


def test_an_orbiting_object_comes_back_to_where_it_was():
    for clip in clips_with("orbits"):
        places = middles(shown_pixels(clip))
        assert np.linalg.norm(places[0] - places[4]) > 15
        assert np.linalg.norm(places[0] - places[7]) < 15


@pytest.mark.parametrize(
    ("call", "message"),
    [(("dev", 0), "unknown split"), (("test", 400), "0 to 399"), (("train", -1), "clip number")],
)
def test_a_clip_that_the_corpus_does_not_have_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        generate_clip(CorpusConfig(), *call)


def test_every_field_of_the_config_changes_the_hash():
    base = CorpusConfig()
    values = {name: 0.05 if name.endswith("_rate") else 7 for name in CorpusConfig.model_fields}
    values["label_rate"] = LabelRate(wrong=0.5)
    changed = [base.model_copy(update={name: value}) for name, value in values.items()]
    assert len({corpus_hash(config) for config in [base, *changed]}) == len(changed) + 1


def test_encoding_keeps_the_colours():
    frames = np.zeros((4, 48, 48, 3), dtype=np.uint8)
    frames[:, 12:36, 12:36] = (40, 70, 235)
    decoded = VideoDecoder(encode_mp4(frames, 8)).frames_at(np.arange(4) / 8)
    assert np.abs(decoded[:, 16:32, 16:32].astype(int) - frames[:, 16:32, 16:32]).max() < 16
