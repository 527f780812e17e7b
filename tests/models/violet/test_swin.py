"""Video Swin against transformers' SwinModel, against a loop over pairs of tokens, and against torch's convolution."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from mama_ray.errors import UserError
from mama_ray.models.violet.model import IMAGENET_PIXEL_MEAN, IMAGENET_PIXEL_STD
from mama_ray.models.violet.swin import SwinBlock, SwinConfig, VideoSwin
from mama_ray.models.violet.windows import relative_position_index, shift_mask

CONSTANTS = {"pixel_mean": IMAGENET_PIXEL_MEAN, "pixel_std": IMAGENET_PIXEL_STD}


def randomise(module: torch.nn.Module, std: float = 0.3) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(std * torch.randn_like(parameter))
    return module.double().eval()


def state_of_hf(hf: torch.nn.Module) -> dict[str, torch.Tensor]:
    """SwinModel's weights under Video Swin's names, for a clip of one frame."""
    ours, qkv = {}, {}
    for key, value in hf.state_dict().items():
        key = key.replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
        key = (
            key.replace("embeddings.norm", "patch_embed.norm")
            .replace("encoder.", "")
            .replace("layernorm_before", "norm1")
        )
        key = key.replace("layernorm_after", "norm2").replace("layernorm", "norm").replace("o_proj", "proj")
        key = key.replace("relative_position_bias.", "").replace("attention.", "attn.")
        if key == "patch_embed.proj.weight":
            value = torch.stack([value, torch.randn_like(value)], dim=2)  # the second meets the frame of zeros
        if key.endswith("bias_table"):
            value = torch.cat([torch.randn(1183, value.shape[1]), value, torch.randn(1183, value.shape[1])])
        if "_proj." in key:
            stem, part = key.rsplit(".", 2)[0], key.rsplit(".", 2)[1:]
            qkv.setdefault(f"{stem}.qkv.{part[1]}", {})[part[0]] = value
        else:
            ours[key] = value
    return ours | {key: torch.cat([parts[f"{one}_proj"] for one in "qkv"]) for key, parts in qkv.items()}


@pytest.mark.parametrize(("image_size", "depths"), [(56, (2, 2)), (40, (2,))])  # 40: a window reaches past the edge
def test_one_frame_equals_transformers_swin(image_size, depths):
    from transformers import SwinConfig as HfConfig
    from transformers import SwinModel

    torch.manual_seed(0)
    heads = (2, 4)[: len(depths)]
    hf = SwinModel(
        HfConfig(image_size=image_size, patch_size=4, embed_dim=12, depths=depths, num_heads=heads, window_size=7),
        add_pooling_layer=False,
    )
    hf = randomise(hf, 0.1)
    config = SwinConfig(embed_dim=12, depths=depths, num_heads=heads)
    ours = VideoSwin(config, image_size=image_size, **CONSTANTS)
    assert {relative_position_index((8, 7, 7))[:49, :49].min().item(), 1183} == {1183}
    ours.load_state_dict(state_of_hf(hf))
    ours = ours.double().eval()
    frames = torch.randint(0, 256, (2, 1, image_size, image_size, 3), dtype=torch.uint8)
    pixels = (frames[:, 0] / 255.0 - torch.tensor(IMAGENET_PIXEL_MEAN)) / torch.tensor(IMAGENET_PIXEL_STD)
    with torch.no_grad():
        wanted = hf(pixels.permute(0, 3, 1, 2).double()).last_hidden_state
        torch.testing.assert_close(ours(frames).flatten(1, 3), wanted, rtol=1e-5, atol=1e-5)


def attend_by_loop(block: SwinBlock, tokens: torch.Tensor) -> torch.Tensor:
    """Attention of one clip, pair by pair: who meets whom follows from the tokens' own places."""
    clip, width = tokens.shape[:3], tokens.shape[3]
    sizes = [min(length, size) for length, size in zip(clip, block.window, strict=True)]
    steps = [
        size // 2 if block.shifts and length > size else 0 for length, size in zip(clip, block.window, strict=True)
    ]
    heads = block.attn.relative_position_bias_table.shape[1]
    dim = width // heads
    queries, keys, values = block.attn.qkv(tokens).unflatten(-1, (3, heads, dim)).unbind(3)
    spans = [2 * size - 1 for size in block.window]
    output = torch.zeros_like(tokens)
    places = list(product(*map(range, clip)))
    for here in places:
        seen = [there for there in places if all(
            ((a - s) % length) // size == ((b - s) % length) // size and abs(a - b) < size
            for a, b, s, size, length in zip(here, there, steps, sizes, clip, strict=True)
        )]  # fmt: skip
        offsets = [[a - b + size - 1 for a, b, size in zip(here, t, block.window, strict=True)] for t in seen]
        rows = [(t * spans[1] + h) * spans[2] + w for t, h, w in offsets]
        for head in range(heads):
            scores = torch.stack([queries[here][head] @ keys[there][head] / math.sqrt(dim) for there in seen])
            shares = (scores + block.attn.relative_position_bias_table[rows, head]).softmax(0)
            mixed = sum(share * values[there][head] for share, there in zip(shares, seen, strict=True))
            output[here][head * dim : (head + 1) * dim] = mixed
    return block.attn.proj(output)


@pytest.mark.parametrize("shifts", [False, True])
def test_window_of_8_with_5_frames_equals_a_loop_over_pairs(shifts):
    torch.manual_seed(0)
    block = randomise(SwinBlock(4, 2, window=(8, 3, 3), shifts=shifts, mlp_ratio=1, drop_path=0.0))
    tokens = torch.randn(1, 5, 6, 6, 4, dtype=torch.float64)
    mask = shift_mask((5, 6, 6), (5, 3, 3), (0, 1, 1), tokens)
    with torch.no_grad():
        torch.testing.assert_close(block._attend(tokens, mask)[0], attend_by_loop(block, tokens[0]))


def test_frames_are_embedded_by_the_convolution_with_one_frame_of_zeros_behind():
    torch.manual_seed(0)
    swin = randomise(VideoSwin(SwinConfig(embed_dim=8, depths=(1,), num_heads=(2,)), image_size=8, **CONSTANTS))
    frames = torch.randint(0, 256, (2, 3, 8, 8, 3), dtype=torch.uint8)
    pixels = (frames / 255.0 - torch.tensor(IMAGENET_PIXEL_MEAN)) / torch.tensor(IMAGENET_PIXEL_STD)
    pixels = F.pad(pixels.double().permute(0, 4, 1, 2, 3), (0, 0, 0, 0, 0, 1))
    embed = swin.patch_embed
    wanted = F.conv3d(pixels, embed.proj.weight, embed.proj.bias, stride=(1, 4, 4)).permute(0, 2, 3, 4, 1)
    assert wanted.shape[1] == 3
    torch.testing.assert_close(embed(frames), embed.norm(wanted), rtol=1e-5, atol=1e-5)


def test_drop_path_leaves_a_branch_out_for_whole_clips_and_only_in_training():
    torch.manual_seed(0)
    block = randomise(SwinBlock(4, 2, window=(2, 2, 2), shifts=False, mlp_ratio=1, drop_path=0.5))
    tokens = torch.randn(40, 1, 2, 2, 4, dtype=torch.float64)
    plain = block._for_some_clips(tokens)
    ratios = (block.train()._for_some_clips(tokens) / tokens).flatten(1)
    assert torch.equal(plain, tokens)
    assert torch.equal(ratios.min(1).values, ratios.max(1).values) and set(ratios[:, 0].tolist()) == {0.0, 2.0}


def test_frames_of_another_size_are_refused():
    swin = VideoSwin(SwinConfig(embed_dim=8, depths=(1,), num_heads=(2,)), image_size=8, **CONSTANTS)
    with pytest.raises(UserError, match=r"got \(1, 1, 16, 16, 3\), wanted \(batch, frames, 8, 8, 3\)"):
        swin(torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8))


@pytest.mark.parametrize("wrong", [{"num_heads": (4, 8)}, {"num_heads": (5, 8, 16, 32)}, {"window": (0, 7, 7)}])
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SwinConfig(**wrong)
