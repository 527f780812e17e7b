"""Adapters, freezing and the depth of layers: what is trained, what leaves the process, what a wrong pattern says."""

import pytest
import torch
from transformers import CLIPModel

from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.models.adapters import adapter_state, exported_state, load_exported_state
from mama_ray.models.clip_vip.hf_layout import to_hf_clip
from mama_ray.models.clip_vip.load import import_hf_clip
from mama_ray.models.patterns import choose, matches
from mama_ray.models.pretrained import BACKBONES, from_preset, from_pretrained, save_pretrained
from mama_ray.models.settings import LoraConfig
from mama_ray.models.stacks import levels_below_top
from mama_ray.models.trained_part import choose_trained_part
from tests.models.test_dual_encoder import FOREIGN, TINY, frames, token_ids  # noqa: F401 - fixtures

ATTENTION = {f"self_attn.{name}_proj" for name in "qkv"} | {"self_attn.out_proj"}


@pytest.fixture(params=sorted(TINY))
def model(request):
    torch.manual_seed(0)
    return BACKBONES[request.param.split()[0]].build_fresh(TINY[request.param])


def fill_factors(model) -> None:
    """Move every factor away from its start, where the second is 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def without_gradient(model, frames, token_ids) -> set[str]:  # noqa: F811
    """Return the trained parameters that the features do not depend on."""
    model.zero_grad()
    video, text = model(frames, token_ids)
    (video @ text.T).logsumexp(dim=1).sum().backward()
    named = model.named_parameters()
    return {name for name, p in named if p.requires_grad and (p.grad is None or not p.grad.any())}


def features(model, frames, token_ids):  # noqa: F811
    with torch.no_grad():
        return model(frames, token_ids)


def test_new_adapters_change_no_feature_and_are_all_that_is_trained_beside_a_few(model, frames, token_ids):  # noqa: F811
    before, names = features(model, frames, token_ids), set(dict(model.named_parameters()))
    choose_trained_part(model, lora=LoraConfig(rank=2))
    for after, plain in zip(features(model, frames, token_ids), before, strict=True):
        torch.testing.assert_close(after, plain, rtol=1e-5, atol=1e-6)  # rounding alone
    assert any(".lora_A." in name for name in trained(model))
    assert all(".lora_" in name or name in names for name in trained(model))
    assert "logit_scale" in trained(model)
    # A pooling over time that no model of images has learned is trained whole.
    sizes = {name: p.numel() for name, p in model.named_parameters() if not name.startswith("pooling.")}
    assert sum(sizes[name] for name in trained(model) & set(sizes)) < sum(sizes.values()) / 2


@pytest.mark.parametrize("targets", [None, ("*",)], ids=["default", "all linear layers"])
def test_every_adapter_is_called_by_the_model(model, frames, token_ids, targets):  # noqa: F811
    """A model that reads a layer's weight past the layer would leave its adapter without effect and gradient."""
    unread = {name.removesuffix(".weight") for name in without_gradient(model, frames, token_ids)}  # by answers alone
    choose_trained_part(model, lora=LoraConfig(rank=1 if targets else 2, targets=targets))
    fill_factors(model)
    silent = {name.partition(".lora_")[0] for name in without_gradient(model, frames, token_ids) if ".lora_" in name}
    assert silent <= unread
    assert any(".lora_" in name and name.partition(".lora_")[0] not in unread for name in trained(model))


@pytest.mark.parametrize("targets", [None, ("*",)], ids=["default", "all linear layers"])
def test_exported_folder_has_no_adapter_and_the_features_with_them(model, frames, token_ids, tmp_path, targets):  # noqa: F811
    plain = {name: value.shape for name, value in model.state_dict().items()}
    choose_trained_part(model, lora=LoraConfig(rank=1 if targets else 2, targets=targets))
    fill_factors(model)
    assert {name: value.shape for name, value in exported_state(model).items()} == plain
    save_pretrained(model, tmp_path)
    loaded = from_pretrained(tmp_path)
    for ours, theirs in zip(features(model, frames, token_ids), features(loaded, frames, token_ids), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_what_is_exported_and_kept_makes_the_same_model_again(model):
    choose_trained_part(model, lora=LoraConfig(rank=2, trained=("logit_scale",)))
    fill_factors(model)
    torch.manual_seed(3)
    other = BACKBONES[model.model_type].build_fresh(model.config)
    choose_trained_part(other, lora=LoraConfig(rank=2), seed=5)
    exported, kept = exported_state(model), adapter_state(model)
    assert kept and not adapter_state(from_preset("tiny", {}))
    load_exported_state(other, exported, kept)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for damaged in ({}, kept | {"more": torch.zeros(1)}, {name: v[:1] for name, v in kept.items()}):
        with pytest.raises(RuntimeError):
            load_exported_state(other, exported, damaged)
    with pytest.raises(RuntimeError):
        load_exported_state(other, exported | {"more": torch.zeros(1)}, kept)


def test_adapters_of_a_clip_folder_are_exported_to_one_that_transformers_loads(tmp_path):
    tiny = with_overrides(TINY["clip_vip"], {"num_proxies": 1})
    to_hf_clip(BACKBONES["clip_vip"].build_fresh(tiny), tmp_path / "begin")
    model, _ = import_hf_clip(tmp_path / "begin", num_frames=1, num_proxies=1)
    choose_trained_part(model, lora=LoraConfig(rank=2, targets=("*.self_attn", "*.mlp.fc1")))
    fill_factors(model)
    to_hf_clip(model, tmp_path / "end")
    theirs, report = CLIPModel.from_pretrained(tmp_path / "end", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    clip = torch.randint(0, 256, (2, 1, 16, 16, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(value) for value in (tiny.pixel_mean, tiny.pixel_std))
    pixels = ((clip[:, 0] / 255 - mean) / std).permute(0, 3, 1, 2)
    ids = torch.tensor([[38, 3, 39, 39], [38, 5, 6, 39]])
    with torch.no_grad():
        found = theirs(pixel_values=pixels, input_ids=ids)
        video, text = model(clip, ids)
    torch.testing.assert_close(found.image_embeds, video, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.text_embeds, text, rtol=1e-4, atol=1e-5)


def test_default_targets_are_all_of_attention_and_nothing_else():
    model = from_preset("tiny", {})
    choose_trained_part(model, lora=LoraConfig())
    adapted = {name.partition(".lora_A")[0] for name in trained(model) if ".lora_A." in name}
    towers = [f"{tower}.encoder.layers.{layer}" for tower in ("vision_model", "text_model") for layer in range(3)]
    assert adapted == {f"{layer}.{name}" for layer in towers for name in ATTENTION}
    assert trained(model) - {name for name in trained(model) if ".lora_" in name} == {
        "logit_scale",
        "vision_model.embeddings.added_cls",
        "vision_model.embeddings.temporal_embedding",
    }


def test_alpha_is_the_factor_times_the_rank_and_twice_the_rank_where_none_is_given():
    deltas = []
    for alpha in (4.0, 1.0, None):
        model = from_preset("tiny", {})
        before = {name: value.clone() for name, value in model.state_dict().items()}
        choose_trained_part(model, lora=LoraConfig(rank=2, alpha=alpha))
        fill_factors(model)
        name = "text_model.encoder.layers.0.self_attn.q_proj.weight"
        deltas.append(exported_state(model)[name] - before[name])
    torch.testing.assert_close(deltas[0], deltas[2], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(deltas[0], 4 * deltas[1], rtol=1e-3, atol=1e-5)


def test_first_factors_come_from_the_seed_alone():
    factors = []
    for seed, draws in ((1, 0), (1, 7), (2, 0)):
        model = from_preset("tiny", {})
        torch.rand(draws)
        state = torch.get_rng_state()
        choose_trained_part(model, lora=LoraConfig(), seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        factors.append(
            dict(model.named_parameters())["text_model.encoder.layers.0.self_attn.q_proj.lora_A.default.weight"]
        )
    assert torch.equal(factors[0], factors[1]) and not torch.equal(factors[0], factors[2])


def test_frozen_parts_are_not_trained_and_get_no_adapters():
    model = from_preset("tiny", {})
    names = set(dict(model.named_parameters()))
    choose_trained_part(model, freeze=("text_model", "vision_model.encoder.layers.[01]"))
    below = ("text_model.", "vision_model.encoder.layers.0.", "vision_model.encoder.layers.1.")
    assert trained(model) == {name for name in names if not name.startswith(below)}
    model = from_preset("tiny", {})
    choose_trained_part(model, freeze=("text_model", "logit_scale"), lora=LoraConfig())
    assert trained(model) and not any(name.startswith(("text_model", "logit_scale")) for name in trained(model))


def test_a_scale_that_is_frozen_by_its_config_stays_so():
    model = from_preset("tiny", {"logit_scale.frozen": True})
    choose_trained_part(model, lora=LoraConfig())
    assert "logit_scale" not in trained(model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"freeze": ("text_modle",)}, ["model.freeze names no parameter", "text_modle", "text_model"]),
        ({"freeze": ("*.layer_norm3.*",)}, ["*.layer_norm3.*", "e.g. of", "layer_norm"]),
        ({"freeze": ("*",)}, ["nothing is left to train", "freeze less"]),
        (
            {"lora": LoraConfig(targets=("*.qproj",))},
            ["model.lora.targets names no linear layer", "*.qproj", "*.q_proj"],
        ),
        ({"lora": LoraConfig(targets=("*.layer_norm1",))}, ["no linear layer", "layer_norm1"]),
        ({"lora": LoraConfig(trained=("logit_scales",))}, ["model.lora.trained", "logit_scale"]),
        ({"lora": LoraConfig(rank=65)}, ["model.lora.rank", "got 65", "at most 64"]),
        ({"lora": LoraConfig(), "freeze": ("*",)}, ["no layer is left for adapters", "model.freeze"]),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(options, words):
    with pytest.raises(UserError) as error:
        choose_trained_part(from_preset("tiny", {}), **options)
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    assert all(word in text for word in words), text


def test_a_pattern_means_a_part_with_all_that_is_in_it():
    assert matches("a.b.c", ["a.b"]) and matches("a.b.c", ["*.c"]) and matches("a.b", ["a.?"])
    assert not matches("ab.c", ["a"]) and not matches("a.b", ["b"])
    assert choose("s", ["a"], ["a.b", "ab", "a"], kind="name") == ["a.b", "a"]


def test_levels_count_the_layers_of_each_tower_from_its_top():
    model = from_preset("tiny", {"video.num_layers": 2})
    levels = levels_below_top(model)
    wanted = {
        "logit_scale": 0, "visual_projection.weight": 0, "vision_model.post_layernorm.bias": 0,
        "text_model.final_layer_norm.weight": 0, "vision_model.encoder.layers.1.mlp.fc1.weight": 1,
        "vision_model.encoder.layers.0.self_attn.q_proj.bias": 2, "vision_model.embeddings.added_cls": 3,
        "vision_model.pre_layrnorm.weight": 3, "text_model.encoder.layers.2.mlp.fc1.weight": 1,
        "text_model.embeddings.token_embedding.weight": 4,
    }  # fmt: skip
    assert {name: levels[name] for name in wanted} == wanted
    assert levels.keys() == dict(model.named_parameters()).keys()


def test_levels_run_through_stages_and_past_direct_parameters():
    class Stage(torch.nn.Module):
        def __init__(self, num_blocks):
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(num_blocks))
            self.downsample = torch.nn.Linear(1, 1)

    class Swin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logit_scale = torch.nn.Parameter(torch.zeros(()))
            self.tower = torch.nn.Module()
            self.tower.patch_embed = torch.nn.Linear(1, 1)
            self.tower.layers = torch.nn.ModuleList([Stage(2), Stage(1)])
            self.tower.norm = torch.nn.LayerNorm(1)
            self.head = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 1))

    levels = levels_below_top(Swin())
    assert levels["logit_scale"] == levels["head.2.weight"] == levels["tower.norm.bias"] == 0
    of_blocks = [
        levels[f"tower.layers.{name}.weight"]
        for name in ("1.downsample", "1.blocks.0", "0.downsample", "0.blocks.1", "0.blocks.0")
    ]
    assert of_blocks == [1, 2, 3, 4, 5] and levels["tower.patch_embed.weight"] == 6
