"""From a clip's bytes to one square picture: which frames are in it, and that a processor crops none of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mama_ray.captioning.narrator.preset import SIDE
from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.pictures.grid import GridConfig, hash_pixels, make_grid
from mama_ray.captioning.pictures.keyframes import KeyFrameConfig
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.config import ConfigError, parse_config
from mama_ray.data.video.container import DecodeError
from tests.captioning.tiny_models import write_llava, write_llava_next
from tests.data.video.video_factory import frame_number, make_video

UNIFORM = ClipGridConfig(key_frames=KeyFrameConfig(method="uniform"))


def cells_of(pixels: np.ndarray, layout: GridConfig, height: int, width: int) -> list[np.ndarray]:
    """Cut the cells of known size out of a padded grid, in the order of time."""
    top, left = (len(pixels) - layout.rows * height) // 2, (len(pixels) - layout.columns * width) // 2
    return [
        pixels[top + row * height :, left + column * width :][:height, :width]
        for row in range(layout.rows)
        for column in range(layout.columns)
    ]


@pytest.mark.parametrize("method", ["motion_peaks", "density_peaks", "uniform"])
def test_cell_k_shows_the_kth_of_ascending_frames(method):
    config = ClipGridConfig(key_frames=KeyFrameConfig(method=method))
    grid = make_clip_grid(make_video(num_frames=16, width=64, height=48), config, side=256)
    indices = grid.frame_indices.tolist()
    assert indices == sorted(set(indices)) and len(indices) == 12
    assert indices[-1] < 16
    shown = [frame_number(cell) for cell in cells_of(grid.pixels, config.layout, 48, 64)]
    assert shown == indices
    assert grid.sha256 == hash_pixels(grid.pixels)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 11])
def test_a_clip_of_fewer_frames_than_cells_repeats_them_and_counts_that(num_frames):
    grid = make_clip_grid(make_video(num_frames=num_frames), UNIFORM, side=192)
    assert sorted(set(grid.frame_indices.tolist())) == list(range(num_frames))
    assert grid.frame_indices.tolist() == sorted(grid.frame_indices.tolist())
    assert (len(grid.frame_indices), grid.num_filled) == (12, 12 - num_frames)


def test_a_long_clip_is_looked_at_in_so_many_frames_over_its_whole_length():
    config = UNIFORM.model_copy(update={"num_candidates": 12})
    grid = make_clip_grid(make_video(num_frames=120, width=32, height=32), config, side=128)
    assert grid.frame_indices.tolist() == [5 + 10 * cell for cell in range(12)]
    assert grid.num_filled == 0


@pytest.mark.parametrize(("width", "height"), [(32, 320), (320, 32), (64, 64), (2, 64), (640, 360), (96, 256)])
@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (4, 3), (1, 12), (12, 1)])
def test_videos_of_any_shape_fit_the_square(width, height, rows, columns):
    config = ClipGridConfig(layout=GridConfig(rows=rows, columns=columns), key_frames=KeyFrameConfig(method="uniform"))
    grid = make_clip_grid(make_video(num_frames=12, width=width, height=height), config, side=192)
    assert grid.pixels.shape == (192, 192, 3)


def test_bytes_that_are_no_video_have_a_readable_reason():
    with pytest.raises(DecodeError, match=r"\w"):
        make_clip_grid(b"no video at all" * 20, UNIFORM, side=192)


@pytest.mark.parametrize("words", [["--key-frames.num-frames", "11"], ["--layout.rows", "2"]])
def test_another_number_of_key_frames_than_of_cells_is_refused_by_the_config(words):
    with pytest.raises(ConfigError, match=r"key_frames.num_frames \d+ is not layout.rows x layout.columns"):
        parse_config(ClipGridConfig, words)
    assert parse_config(ClipGridConfig, ["--key-frames.num-frames", "4", "--layout.rows", "1"]).layout.num_cells == 4


@pytest.mark.parametrize(("tall", "wide"), [(3, 6), (6, 3), (3, 3), (12, 3)])
@pytest.mark.parametrize(("write", "side"), [(write_llava, SIDE), (write_llava_next, 56)])
def test_the_corners_of_the_grid_come_through_the_models_own_processor(write, side, tall, wide, tmp_path):
    """CLIP's processor scales the shorter edge and crops the middle out: of a wide picture the sides are lost."""
    from transformers import AutoProcessor

    layout, height, width = GridConfig(rows=3, columns=3), side // tall, side // wide
    frames = np.zeros((9, height, width, 3), np.uint8)
    first, last = slice(0, 2), slice(-2, None)
    corners = {0: (first, first), 2: (first, last), 6: (last, first), 8: (last, last)}
    for number, corner in corners.items():
        frames[number][corner] = 255
    seen = preprocess(AutoProcessor.from_pretrained(write(tmp_path)).image_processor, make_grid(frames, layout, side))
    cells = cells_of(seen, layout, height, width)
    for number, corner in corners.items():
        assert (cells[number][corner] > 250).all()
    assert (seen > 250).all(axis=-1).sum() == 4 * 4


def preprocess(images, pixels: np.ndarray) -> np.ndarray:
    """Return the picture that the vision tower gets, (height, width, 3), its normalisation undone."""
    values = np.asarray(images(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0])
    whole = values.reshape(-1, *values.shape[-3:])[0].transpose(1, 2, 0)
    return (whole * np.array(images.image_std) + np.array(images.image_mean)) * 255


def test_the_processor_would_crop_a_grid_that_is_not_square(tmp_path):
    """Else the test above proves nothing."""
    from transformers import AutoProcessor

    images = AutoProcessor.from_pretrained(write_llava(tmp_path)).image_processor
    wide = np.zeros((SIDE // 2, SIDE, 3), np.uint8)
    wide[:, :8] = wide[:, -8:] = 255
    assert (preprocess(images, wide) > 200).sum() == 0


def test_the_writing_of_a_grid_does_not_depend_on_where_the_video_lies(tmp_path: Path):
    video = make_video(num_frames=14)
    path = tmp_path / "clip.mp4"
    path.write_bytes(video)
    assert make_clip_grid(video, UNIFORM, side=192).sha256 == make_clip_grid(path, UNIFORM, side=192).sha256
