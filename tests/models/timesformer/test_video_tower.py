"""TimeSformer's block against dense attention under masks, and what it must see and must not."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mama_ray.models.attention import attend
from mama_ray.models.timesformer.video_tower import Block, regroup, resample_temporal
from mama_ray.models.transformer import EncoderConfig
from tests.models.timesformer.small import small_timesformer, some_frames


def dense_masks(num_frames: int, num_places: int) -> dict[str, Tensor]:
    """Who sees whom: the class token is seen by and sees all, a patch its place over time, or its frame."""
    places = [(None, None)] + [(frame, place) for frame in range(num_frames) for place in range(num_places)]
    masks = {}
    for name, axis in (("space", 0), ("time", 1)):
        sees = [[a[0] is None or b[0] is None or a[axis] == b[axis] for b in places] for a in places]
        masks[name] = torch.tensor(sees)[None, None]
    return masks


def some_block(kind: str, drop_path: float = 0.0) -> Block:
    torch.manual_seed(3)
    return Block(EncoderConfig(width=16, num_layers=1, num_heads=2), kind, drop_path).double()


@pytest.mark.parametrize(("num_frames", "num_places"), [(3, 4), (1, 5), (4, 1), (2, 2)])
def test_block_equals_dense_attention_under_its_masks(num_frames, num_places):
    block, masks = some_block("divided"), dense_masks(num_frames, num_places)
    x = torch.randn(2, 1 + num_frames * num_places, 16, dtype=torch.float64)
    over = {name: partial(attend, mask=mask) for name, mask in masks.items()}
    t = x + block.timeattn(block.norm3(x), over["time"])
    middle = x + block.attn(block.norm1(t), over["space"])
    wanted = middle + block.mlp(block.norm2(middle))
    torch.testing.assert_close(block(x, num_frames), wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(block(x, num_frames, True), wanted[:, :1], rtol=1e-10, atol=1e-10)


def test_joint_block_lets_every_token_see_every_one():
    block, x = some_block("joint"), torch.randn(2, 7, 16, dtype=torch.float64)
    assert block.timeattn is None and block.norm3 is None
    middle = x + block.attn(block.norm1(x), attend)
    wanted = middle + block.mlp(block.norm2(middle))
    torch.testing.assert_close(block(x, 3), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(block(x, 2, True), wanted[:, :1], rtol=1e-12, atol=1e-12)


def test_regrouping_puts_the_frames_of_a_place_together_and_is_undone_by_itself():
    tokens = torch.arange(7.0).view(1, 7, 1)  # a class token, two frames of three places
    assert regroup(tokens, 2).flatten().tolist() == [0, 1, 4, 2, 5, 3, 6]
    assert torch.equal(regroup(regroup(tokens, 2), 3), tokens)


def test_stochastic_depth_drops_space_and_mlp_of_whole_clips_and_never_time():
    block = some_block("divided", drop_path=0.5).train()
    x = torch.randn(64, 5, 16, dtype=torch.float64)
    torch.manual_seed(0)
    out = block(x, 2)
    dropped_all = [torch.equal(a, b) for a, b in zip(out, x, strict=True)]
    assert 4 <= sum(dropped_all) <= 32  # a quarter of the clips
    torch.manual_seed(0)
    assert torch.equal(block(x, 2), out)
    torch.testing.assert_close(block.eval()(x, 2), some_block("divided").eval()(x, 2))


def test_rates_grow_with_depth():
    model = small_timesformer({"drop_path": 0.3, "video.num_layers": 4})
    assert [block.drop_path for block in model.visual.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("attention", ["divided", "joint"])
@pytest.mark.parametrize("frame", range(4))
def test_changing_any_single_frame_changes_the_feature(attention, frame):
    model, frames = small_timesformer({"attention": attention}), some_frames()
    other = frames.clone()
    other[:, frame] = 255 - other[:, frame]
    assert (model.encode_video(other) - model.encode_video(frames)).abs().amax(dim=1).min() > 1e-4


def test_order_of_frames_is_visible_by_the_temporal_embedding_alone():
    model, frames = small_timesformer(), some_frames()
    turned = frames.flip(1)
    assert (model.encode_video(turned) - model.encode_video(frames)).abs().max() > 1e-4
    with torch.no_grad():
        model.visual.temporal_embed.zero_()
    torch.testing.assert_close(model.encode_video(turned), model.encode_video(frames), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_frames", [1, 3, 16])
def test_four_frame_weights_run_at_other_counts(num_frames):
    model = small_timesformer()
    assert model.encode_video(some_frames(num_frames)).shape == (3, 6)
    tower = model.visual
    if num_frames < 4:
        assert torch.equal(tower.temporal_at(num_frames), tower.temporal_embed[:, :num_frames])
    else:
        table = tower.temporal_embed[:, None]
        bilinear = F.interpolate(table, (num_frames, table.shape[-1]), mode="bilinear")[:, 0]
        torch.testing.assert_close(resample_temporal(tower.temporal_embed, num_frames), bilinear)


def test_class_token_of_all_tokens_is_the_one_that_is_projected():
    model, frames = small_timesformer(), some_frames()
    tokens = model.video_tokens(frames)
    assert tokens.shape == (3, 1 + 4 * 4, 24) and model.pooled_width == 24
    torch.testing.assert_close(tokens[:, 0], model.pool_video(frames), rtol=1e-10, atol=1e-10)
    projected = F.normalize(model.pool_video(frames) @ model.image_projection, dim=-1)
    torch.testing.assert_close(model.encode_video(frames), projected)
