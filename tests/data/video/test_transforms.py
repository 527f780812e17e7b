import numpy as np
import pytest

from mama_ray.data.video.transforms import (
    CROP_RATIO,
    CROP_SCALE,
    TransformConfig,
    center_crop,
    random_resized_crop,
    resize_frames,
    sample_crop,
    transform_frames,
)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 60, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["squash", "center_crop", "random_crop", "random_resized_crop"])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (32, 32), (7, 300), (1, 1)])
def test_every_transform_gives_squares_of_uint8(resize, shape, interpolation):
    frames = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    config = TransformConfig(image_size=32, resize=resize, interpolation=interpolation)
    for rng in (None, np.random.default_rng(1)):
        out = transform_frames(frames, config, rng=rng)
        assert out.shape == (2, 32, 32, 3)
        assert out.dtype == np.uint8
        assert out.flags.c_contiguous


def test_filter_is_what_is_asked_for_and_named_where_it_is_not_the_usual_one(frames):
    bicubic, bilinear = (TransformConfig(image_size=32, interpolation=name) for name in ("bicubic", "bilinear"))
    assert (str(bicubic), str(bilinear)) == ("squash", "squash, bilinear")
    assert not np.array_equal(transform_frames(frames, bicubic, rng=None), transform_frames(frames, bilinear, rng=None))
    np.testing.assert_array_equal(
        transform_frames(frames, bilinear, rng=None), resize_frames(frames, 32, 32, "bilinear")
    )


def test_scaling_many_frames_equals_scaling_each(frames):
    together = resize_frames(frames, 24, 32)
    for frame, expected in zip(frames, together, strict=True):
        np.testing.assert_array_equal(resize_frames(frame[None], 24, 32)[0], expected)


def test_scaling_down_is_antialiased():
    stripes = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    assert np.abs(resize_frames(stripes, 16, 16).astype(int) - 127).max() < 12


def test_scaling_agrees_with_pillow(frames):
    from PIL import Image

    expected = np.asarray(Image.fromarray(frames[0]).resize((32, 24), Image.Resampling.BICUBIC))
    assert np.abs(resize_frames(frames[:1], 24, 32)[0].astype(int) - expected).max() <= 1


def test_center_crop_takes_the_middle_of_the_long_side():
    frames = np.zeros((1, 40, 120, 3), dtype=np.uint8)
    frames[:, :, 40:80] = 200
    assert (center_crop(frames, 40) == 200).all()


def test_one_crop_serves_all_frames_of_a_clip(frames):
    same = np.repeat(frames[:1], 4, axis=0)
    out = random_resized_crop(same, 32, np.random.default_rng(3))
    assert (out == out[0]).all()


def test_a_random_crop_is_a_square_of_the_scaled_clip_wherever_it_lies(frames):
    scaled = resize_frames(frames, 30, 45)
    config = TransformConfig(image_size=30, resize="random_crop")
    lefts = set()
    for seed in range(60):
        out = transform_frames(frames, config, rng=np.random.default_rng(seed))
        (left,) = (one for one in range(16) if np.array_equal(out, scaled[:, :, one : one + 30]))
        lefts.add(left)
    assert {0, 15} <= lefts and len(lefts) > 10
    np.testing.assert_array_equal(transform_frames(frames, config, rng=None), center_crop(frames, 30))


def test_random_crop_never_flips():
    ramp = np.broadcast_to(np.linspace(0, 255, 90).astype(np.uint8)[None, None, :, None], (1, 60, 90, 3))
    for seed in range(50):
        out = random_resized_crop(ramp, 32, np.random.default_rng(seed)).astype(int)
        assert out[0, :, -1].mean() > out[0, :, 0].mean()


def test_crops_keep_scale_and_ratio_and_lie_inside():
    rng = np.random.default_rng(0)
    for _ in range(300):
        top, left, height, width = sample_crop(60, 90, rng)
        assert 0 <= top <= 60 - height
        assert 0 <= left <= 90 - width
        assert CROP_SCALE[0] - 0.03 <= height * width / 5400 <= CROP_SCALE[1] + 0.03
        assert CROP_RATIO[0] - 0.05 <= width / height <= CROP_RATIO[1] + 0.05


def test_random_crop_is_a_function_of_its_generator(frames):
    one, two = (random_resized_crop(frames, 32, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (one != random_resized_crop(frames, 32, np.random.default_rng(10))).any()
