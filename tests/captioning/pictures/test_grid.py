"""The grid: time order, a square whatever the cells' shape, and no pixel lost."""

import numpy as np
import pytest

from mama_ray.captioning.pictures.grid import GridConfig, hash_pixels, make_grid, pad_to_square


def numbered(num_frames: int, height: int, width: int) -> np.ndarray:
    return np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * np.ones((height, width, 3), np.uint8)


@pytest.mark.parametrize(("rows", "columns", "height", "width"), [(3, 4, 6, 8), (2, 2, 9, 4), (1, 5, 4, 4)])
def test_cells_lie_in_time_order_inside_a_square(rows, columns, height, width):
    grid = make_grid(numbered(rows * columns, height, width), GridConfig(rows=rows, columns=columns))
    side = max(rows * height, columns * width)
    assert grid.shape == (side, side, 3)
    top, left = (side - rows * height) // 2, (side - columns * width) // 2
    inner = grid[top : top + rows * height, left : left + columns * width]
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        cell = inner[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert (cell == number).all()


def test_another_number_of_frames_is_refused():
    with pytest.raises(ValueError, match="got 11, wanted rows x columns = 3 x 4 = 12"):
        make_grid(numbered(11, 4, 4), GridConfig())


def test_a_square_is_left_as_it_is():
    picture = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    assert (pad_to_square(picture) == picture).all()


def test_the_hash_tells_pixels_and_shapes_apart():
    picture = np.zeros((4, 6, 3), np.uint8)
    other = picture.copy()
    other[0, 0, 0] = 1
    hashes = {hash_pixels(picture), hash_pixels(other), hash_pixels(picture.transpose(1, 0, 2))}
    assert len(hashes) == 3
    assert hash_pixels(picture) == hash_pixels(picture[:, ::-1][:, ::-1])
