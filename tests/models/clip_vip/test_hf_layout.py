"""Against transformers.CLIPModel, built small at random."""

import json

import pytest
import torch

from mama_ray.errors import UserError
from mama_ray.models.clip_vip.hf_layout import to_hf_clip
from mama_ray.models.clip_vip.key_layouts import NEW_KEYS
from mama_ray.models.clip_vip.load import import_hf_clip
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.pretrained import from_pretrained

VOCAB = 40


@pytest.fixture(scope="module")
def hf_model():
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    tower["projection_dim"] = 12
    text = tower | {"vocab_size": VOCAB, "max_position_embeddings": 10, "eos_token_id": VOCAB - 1}
    vision = tower | {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def hf_directory(hf_model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("hf")
    hf_model.save_pretrained(directory)
    return directory


def _hf_features(hf_model, images, token_ids, config):
    mean, std = (torch.tensor(x, dtype=torch.float64) for x in (config.pixel_mean, config.pixel_std))
    pixels = ((images.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        output = hf_model.double()(input_ids=token_ids, pixel_values=pixels)
    return output.image_embeds, output.text_embeds


def test_features_of_one_frame_equal_clip_without_extra_proxies(hf_model, hf_directory, frames, token_ids):
    model, report = import_hf_clip(hf_directory, num_proxies=1)
    assert report.fresh == NEW_KEYS
    images, texts = _hf_features(hf_model, frames[:, 0], token_ids, model.config)
    video, text = model.double()(frames[:, :1], token_ids)
    torch.testing.assert_close(video, images, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(text, texts, rtol=1e-9, atol=1e-9)


def test_features_of_what_was_never_trained_on_videos_are_clips_own(hf_model, hf_directory, frames, token_ids):
    one, again = (from_pretrained(hf_directory, trained_only=True, num_frames=frames.shape[1]) for _ in range(2))
    assert torch.equal(one.encode_video(frames), again.encode_video(frames))
    assert not torch.equal(*(from_pretrained(hf_directory).encode_video(frames) for _ in range(2)))  # drawn, to train
    images, _ = _hf_features(hf_model, frames[:, 0], token_ids, one.config)
    torch.testing.assert_close(one.to(torch.float64).encode_video(frames[:, :1]), images, rtol=1e-5, atol=1e-6)


def test_import_reports_the_video_keys_as_fresh_and_nothing_else(hf_directory):
    model, report = import_hf_clip(hf_directory)
    assert report.fresh == NEW_KEYS
    assert not (report.missing or report.unexpected or report.mismatched or report.interpolated)
    assert model.config.num_frames == 12
    assert model.config.num_proxies == 4
    assert model.vision_model.embeddings.temporal_embedding.abs().max() == 0


def test_sharded_directory_loads_like_a_whole_one(hf_model, hf_directory, tmp_path):
    hf_model.float().save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    whole = from_pretrained(hf_directory, num_proxies=1).state_dict()
    sharded = from_pretrained(tmp_path, num_proxies=1).state_dict()
    assert all(torch.equal(whole[key], sharded[key]) for key in whole)


def test_missing_shard_is_named(hf_model, tmp_path):
    hf_model.float().save_pretrained(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        from_pretrained(tmp_path)


def test_shard_index_cannot_lead_out_of_the_directory(hf_directory, tmp_path):
    (tmp_path / "config.json").write_bytes((hf_directory / "config.json").read_bytes())
    index = {"weight_map": {"logit_scale": "../outside.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside"):
        from_pretrained(tmp_path)


def test_pixel_constants_come_from_the_preprocessor_file(hf_directory, tmp_path):
    for file in hf_directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    constants = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(constants))
    config = from_pretrained(tmp_path).config
    assert config.pixel_mean == (0.5, 0.4, 0.3)
    assert config.pixel_std == (0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    ("tower", "field", "value"),
    [
        ("vision_config", "hidden_act", "gelu"),
        ("text_config", "layer_norm_eps", 1e-6),
        ("text_config", "eos_token_id", 7),
    ],
)
def test_clip_variants_the_model_cannot_compute_are_refused(hf_directory, tmp_path, tower, field, value):
    content = json.loads((hf_directory / "config.json").read_text())
    content[tower][field] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not supported"):
        import_hf_clip(tmp_path)


@pytest.mark.parametrize(
    ("tower", "field", "value"), [("vision_config", "hidden_size", "wide"), ("vision_config", "image_size", [16, 16])]
)
def test_damaged_clip_config_is_one_clear_error(hf_directory, tmp_path, tower, field, value):
    content = json.loads((hf_directory / "config.json").read_text())
    content[tower][field] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=field):
        import_hf_clip(tmp_path)


def test_export_loads_in_transformers_with_equal_features(hf_directory, frames, token_ids, tmp_path):
    from transformers import CLIPModel

    model = from_pretrained(hf_directory, num_proxies=1)
    assert isinstance(model, ClipVip)
    with torch.no_grad():
        model.vision_model.embeddings.temporal_embedding.normal_()
    to_hf_clip(model, tmp_path)
    exported, loading = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    images, texts = _hf_features(exported, frames[:, 0], token_ids, model.config)
    video, text = model.double()(frames[:, :1], token_ids)
    torch.testing.assert_close(video, images, rtol=1e-5, atol=1e-6)  # the sum of two embeddings is rounded to float32
    torch.testing.assert_close(text, texts, rtol=1e-9, atol=1e-9)


def test_import_then_export_gives_back_keys_and_bytes(hf_model, hf_directory, tmp_path):
    to_hf_clip(from_pretrained(hf_directory), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (hf_directory / "model.safetensors").read_bytes()
    again = from_pretrained(tmp_path).config
    assert again == from_pretrained(hf_directory).config
