"""A CLIP folder as a start: one frame has CLIP's own features, of 12 and 24 layers, until time is learned."""

import json

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel

from mama_ray.errors import UserError
from mama_ray.models.pretrained import describe_model, outline_model, save_pretrained
from mama_ray.models.settings import LoraConfig
from mama_ray.models.timesformer.model import Timesformer
from mama_ray.models.trained_part import choose_trained_part
from tests.models.timesformer.small import loaded, some_frames, some_texts


def clip_model(num_layers: int = 3, **vision) -> CLIPModel:
    """Random weights, none at a value that hides an error."""
    torch.manual_seed(5)
    tower = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 128}
    text = tower | {"num_hidden_layers": 2, "vocab_size": 40, "max_position_embeddings": 10, "eos_token_id": 39}
    image = tower | {"num_hidden_layers": num_layers, "image_size": 32, "patch_size": 8} | vision
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=12)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def folder(tmp_path):
    clip_model().save_pretrained(tmp_path)
    return tmp_path


def pixels(model: Timesformer, frames: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(model.config.pixel_mean), torch.tensor(model.config.pixel_std)
    return ((frames.float() / 255 - mean) / std).movedim(-1, 1)


@pytest.mark.parametrize("prefix", ["timesformer:", "joint:"])
@pytest.mark.parametrize("num_layers", [12, 24])
def test_one_frame_has_the_features_of_clips_vision_model(prefix, num_layers, tmp_path):
    clip = clip_model(num_layers)
    clip.save_pretrained(tmp_path)
    model, frames = loaded(f"{prefix}{tmp_path}"), some_frames(1)
    with torch.no_grad():
        ours, inputs = model.pool_video(frames), pixels(model, frames[:, 0])
        theirs = clip.vision_model(inputs).pooler_output  # the class token behind the last norm
        assert ours.std() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
        if prefix == "timesformer:":  # all norms but the first with the epsilon of its blocks
            for name, module in clip.vision_model.named_modules():
                if isinstance(module, torch.nn.LayerNorm) and name != "pre_layrnorm":
                    module.eps = 1e-6
        torch.testing.assert_close(ours, clip.vision_model(inputs).pooler_output, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prefix", ["timesformer:", "joint:"])
def test_without_training_the_joint_space_is_clips_own(prefix, folder):
    clip, model = CLIPModel.from_pretrained(folder).eval(), loaded(f"{prefix}{folder}", trained_only=True)
    frames, texts = some_frames(1), some_texts(model.config)
    assert model.config.dim == 12 and model.logit_scale.item() == pytest.approx(clip.logit_scale.item())
    with torch.no_grad():
        image = clip.get_image_features(pixel_values=pixels(model, frames[:, 0]))
        text = clip.get_text_features(input_ids=texts)
        image, text = (getattr(one, "pooler_output", one) for one in (image, text))
        torch.testing.assert_close(model.encode_video(frames), F.normalize(image, dim=-1), rtol=0, atol=1e-5)
        torch.testing.assert_close(model.encode_text(texts), F.normalize(text, dim=-1), rtol=0, atol=1e-5)


def test_for_training_time_and_a_joint_space_of_256_are_new(folder):
    model = loaded(f"timesformer:{folder}")
    assert model.config == describe_model(folder, prefix="timesformer:")
    assert (model.config.dim, model.config.num_frames, model.config.attention) == (256, 4, "divided")
    new = set(model.new_weights)
    assert {"visual.temporal_embed", "image_projection", "text_projection", "logit_scale"} < new
    assert {name for name in new if ".timeattn." in name or ".norm3." in name} == new - {
        "visual.temporal_embed", "image_projection", "text_projection", "logit_scale",
    }  # fmt: skip
    assert set(loaded(f"joint:{folder}").new_weights) == {
        "visual.temporal_embed", "image_projection", "text_projection", "logit_scale",
    }  # fmt: skip
    outline = outline_model(folder, prefix="joint:")
    assert outline.config.attention == "joint" and outline.logit_scale.is_meta


def trained_a_little(folder, time_start: str) -> torch.nn.Module:
    """Return the first attention over time after three steps."""
    model = loaded(f"timesformer:{folder}", time_start=time_start)
    optimizer, frames = torch.optim.AdamW(model.parameters(), lr=1e-2), some_frames()
    before = model.encode_video(frames).detach()
    for _ in range(3):
        optimizer.zero_grad()
        (model.encode_video(frames) * torch.arange(256)).sum().backward()
        optimizer.step()
    assert not torch.equal(model.encode_video(frames), before)
    return model.visual.blocks[0].timeattn


def test_time_is_learned_from_an_output_of_zero(folder):
    attention = trained_a_little(folder, "zero_output")
    untrained = loaded(f"timesformer:{folder}").visual.blocks[0].timeattn
    assert not untrained.proj.weight.any() and untrained.qkv.weight.any()
    assert torch.linalg.matrix_rank(attention.proj.weight) > 2


def test_lavilas_start_never_learns_whom_to_attend_to(folder):
    start = loaded(f"timesformer:{folder}", time_start="lavila").visual.blocks[0].timeattn
    assert not start.qkv.weight.any() and (start.proj.weight == 1).all()
    assert not (start.qkv.bias.any() or start.proj.bias.any())
    queries, keys, values = trained_a_little(folder, "lavila").qkv.weight.chunk(3)
    assert not queries.any() and not keys.any() and values.any()
    torch.testing.assert_close(values, values[:1].expand_as(values), rtol=1e-3, atol=1e-5)  # all channels alike


def test_another_size_and_frame_count_are_resampled(folder):
    model = loaded(f"timesformer:{folder}", image_size=48, num_frames=8, interpolate=True)
    assert model.visual.pos_embed.shape == (1, 37, 32) and model.visual.temporal_embed.shape == (1, 8, 32)
    assert model.encode_video(some_frames(8, side=48)).shape == (3, 256)


def test_adapters_train_time_whole(folder):
    model = loaded(f"timesformer:{folder}")
    choose_trained_part(model, lora=LoraConfig(rank=2))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if ".lora_" not in name} == set(model.new_weights)
    assert "visual.blocks.0.attn.qkv.lora_A.default.weight" in trained


def test_a_folder_of_ours_is_loaded_as_what_it_is_whatever_its_prefix(folder, tmp_path):
    model = loaded(f"timesformer:{folder}")
    save_pretrained(model, tmp_path / "own")
    again = loaded(f"timesformer:{tmp_path / 'own'}")
    assert again.config == model.config and again.new_weights == ()
    assert torch.equal(again.image_projection, model.image_projection)
    with pytest.raises(UserError, match="another attention: got divided, wanted joint"):
        loaded(f"joint:{tmp_path / 'own'}")


def test_other_folders_are_refused_in_one_line(folder, tmp_path):
    for model_type, words in (("siglip", "got siglip, wanted a CLIPModel folder"), (None, "wanted a CLIPModel folder")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(UserError, match=words):
            loaded(f"timesformer:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "timesformer", "architectures": ["TimesformerModel"]}')
    with pytest.raises(UserError, match="TimesformerModel, which is another network"):
        loaded(tmp_path)


def test_a_clip_of_another_activation_is_refused(tmp_path):
    clip_model(hidden_act="gelu").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="hidden_act"):
        loaded(f"timesformer:{tmp_path}")
