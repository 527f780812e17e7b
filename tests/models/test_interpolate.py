import torch

from mama_ray.models.interpolate import interpolate_positions, interpolate_temporal


def test_temporal_embedding_of_the_same_length_is_untouched():
    embedding = torch.randn(1, 4, 3)
    assert interpolate_temporal(embedding, 4) is embedding


def test_temporal_interpolation_is_linear_between_frame_centres():
    embedding = torch.tensor([[[0.0], [2.0], [4.0], [6.0]]])
    assert interpolate_temporal(embedding, 2).flatten().tolist() == [1.0, 5.0]
    assert interpolate_temporal(embedding, 1).flatten().tolist() == [3.0]


def test_position_interpolation_keeps_the_class_position_and_constants():
    embedding = torch.cat([torch.full((1, 2), 7.0), torch.full((9, 2), 3.0)])
    larger = interpolate_positions(embedding, 5)
    assert larger.shape == (26, 2)
    assert torch.equal(larger[:1], embedding[:1])
    torch.testing.assert_close(larger[1:], torch.full((25, 2), 3.0))


def test_position_interpolation_keeps_rows_and_columns_apart():
    rows = torch.arange(4.0).repeat_interleave(4)[:, None]
    raster = interpolate_positions(torch.cat([torch.zeros(1, 1), rows]), 8)[1:].reshape(8, 8)
    assert (raster.diff(dim=0) > 0).all()
    torch.testing.assert_close(raster, raster[:, :1].expand(8, 8))
