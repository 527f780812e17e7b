import pytest
import torch
import torch.nn.functional as F

from mama_ray.errors import UserError


def test_frame_order_is_invisible_without_temporal_embedding(model, frames):
    with torch.no_grad():
        model.vision_model.embeddings.temporal_embedding.zero_()
    shuffled = frames[:, [2, 0, 1]]
    torch.testing.assert_close(model.encode_video(shuffled), model.encode_video(frames), rtol=1e-12, atol=1e-12)


def test_frame_order_is_visible_with_temporal_embedding(model, frames):
    assert (model.encode_video(frames[:, [2, 0, 1]]) - model.encode_video(frames)).abs().max() > 1e-4


@pytest.mark.parametrize("frame", range(3))
def test_changing_any_single_frame_changes_the_feature(model, frames, frame):
    other = frames.clone()
    other[:, frame] = 255 - other[:, frame]
    difference = model.encode_video(other) - model.encode_video(frames)
    assert difference.abs().amax(dim=1).min() > 1e-4


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_other_frame_counts_run(model, frames, num_frames):
    features = model.encode_video(frames[:, [0] * num_frames])
    assert features.shape == (4, 12)


def test_patch_embedding_equals_the_convolution(model, frames, small_config):
    embeddings = model.vision_model.embeddings
    with torch.no_grad():
        embeddings.position_embedding.weight.zero_()
        embeddings.temporal_embedding.zero_()
    ours = embeddings(frames)[:, small_config.num_proxies :]
    mean, std = (torch.tensor(x, dtype=torch.float64) for x in (small_config.pixel_mean, small_config.pixel_std))
    pixels = ((frames.double() / 255 - mean) / std).flatten(0, 1).permute(0, 3, 1, 2)
    convolved = F.conv2d(pixels, embeddings.patch_embedding.weight, stride=small_config.patch_size)
    expected = convolved.flatten(2).transpose(1, 2).reshape(ours.shape)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)  # the constants are held in float32


def test_float_frames_of_the_same_range_give_the_same_feature(model, frames):
    assert torch.equal(model.encode_video(frames.double()), model.encode_video(frames))


def test_frames_of_another_size_or_layout_are_refused(model, frames):
    with pytest.raises(UserError, match="16, 16, 3"):
        model.encode_video(frames[:, :, :8])
    with pytest.raises(UserError, match="channels last"):
        model.encode_video(frames.movedim(-1, 2))
