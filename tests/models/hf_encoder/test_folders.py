"""Folders of transformers: read strictly, written back as they were, refused in one line."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mama_ray.data.video.transforms import TransformConfig, transform_frames
from mama_ray.errors import UserError
from mama_ray.models.clip_vip.model import ClipVip
from mama_ray.models.hf_encoder.architectures import ARCHITECTURES
from mama_ray.models.hf_encoder.layout import export_to_hf
from mama_ray.models.hf_encoder.model import HfEncoder
from mama_ray.models.hf_encoder.preprocessor import pixel_fields
from mama_ray.models.pretrained import describe_model, from_pretrained, save_pretrained
from mama_ray.models.run_config import evaluation_transform
from tests.models.hf_encoder.hf_models import build, clips, texts

KINDS = [name for name in ARCHITECTURES if name != "pe_video"]


@pytest.fixture
def folder(tmp_path):
    build("siglip2").save_pretrained(tmp_path / "siglip2")
    return tmp_path / "siglip2"


def change_config(folder, **fields) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | fields))


@pytest.mark.parametrize("kind", KINDS)
def test_import_then_export_gives_back_keys_and_bytes_and_loads_in_transformers(kind, tmp_path):
    import transformers

    build(kind).save_pretrained(tmp_path / "theirs")
    ours = from_pretrained(f"hf:{tmp_path / 'theirs'}")
    assert isinstance(ours, HfEncoder)
    export_to_hf(ours, tmp_path / "back")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).is_file()
    back, before = (load_file(tmp_path / name / "model.safetensors") for name in ("back", "theirs"))
    assert back.keys() == before.keys() and all(torch.equal(back[name], before[name]) for name in before)
    model, loading = getattr(transformers, ARCHITECTURES[kind].model_class).from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(loading.values())
    assert {name: value.shape for name, value in model.state_dict().items()} == {n: v.shape for n, v in before.items()}
    assert from_pretrained(f"hf:{tmp_path / 'back'}").config == ours.config


def test_own_folder_keeps_what_was_learned_over_time(folder, tmp_path):
    torch.manual_seed(0)
    model = from_pretrained(folder, temporal_layers=1, num_frames=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.clamp_logit_scale_()
    save_pretrained(model, tmp_path / "own")
    again = from_pretrained(tmp_path / "own")
    assert again.config == model.config == describe_model(tmp_path / "own")
    frames = clips()
    assert torch.equal(again.eval().encode_video(frames), model.eval().encode_video(frames))
    assert torch.equal(again.state_dict()["logit_bias"], model.state_dict()["logit_bias"])
    with pytest.raises(UserError, match=r"pooling.temporal_embedding: got \(1, 3, 16\), wanted \(1, 5, 16\)"):
        from_pretrained(tmp_path / "own", num_frames=5)
    assert from_pretrained(tmp_path / "own", num_frames=5, interpolate=True).encode_video(frames).shape == (4, 16)
    with pytest.raises(UserError, match="transformers has no place for a learned pooling"):
        export_to_hf(model, tmp_path / "back")


def test_a_clip_folder_is_a_clip_vip_unless_it_is_named_with_hf(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    text = tower | {"vocab_size": 40, "max_position_embeddings": 10, "eos_token_id": 39, "bos_token_id": 38}
    vision = tower | {"image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(tmp_path)
    frames = from_pretrained(f"hf:{tmp_path}").eval()
    assert isinstance(frames, HfEncoder) and isinstance(from_pretrained(tmp_path), ClipVip)
    clip = from_pretrained(tmp_path, trained_only=True).eval()
    one = clips(num_frames=1)
    torch.testing.assert_close(frames.encode_video(one), clip.encode_video(one), rtol=0, atol=1e-5)
    assert (frames.config.resize, describe_model(tmp_path, prefix="hf:")) == ("center_crop", frames.config)


def test_half_precision_and_sharded_folders_load(folder, tmp_path):
    hf = build("siglip2")
    hf.half().save_pretrained(tmp_path / "half", max_shard_size="20KB")
    assert (tmp_path / "half/model.safetensors.index.json").is_file()
    half, whole = (from_pretrained(place).eval() for place in (tmp_path / "half", folder))
    assert half.logit_scale.dtype == torch.float32
    torch.testing.assert_close(half.encode_text(texts()), whole.encode_text(texts()), rtol=0, atol=1e-2)


def _drop(state):
    del state["text_model.head.bias"]


def _add(state):
    state["adapter.weight"] = torch.zeros(2)


def _reshape(state):
    state["vision_model.post_layernorm.weight"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_drop, "missing: hf.text_model.head.bias"),
        (_add, "unexpected: hf.adapter.weight"),
        (_reshape, r"hf.vision_model.post_layernorm.weight: got \(3,\), wanted \(16,\)"),
    ],
)
def test_one_key_more_one_less_and_another_shape_are_named(folder, damage, told):
    state = load_file(folder / "model.safetensors")
    damage(state)
    save_file(state, folder / "model.safetensors")
    for use in (lambda: from_pretrained(folder), lambda: describe_model(folder)):
        with pytest.raises(UserError, match=told):
            use()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model_type": "bert"}, "holds no dual encoder of transformers that is known here: got model_type bert"),
        ({"model_type": "xclip"}, "holds no dual encoder"),
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, r"wants to run code that comes with it \(auto_map"),
        ({"text_config": {"auto_map": {"AutoModel": "modeling.Mine"}}}, r"wants to run code that comes with it"),
        ({"vision_config": {"hidden_size": "wide"}}, "is not a usable config: got .*hidden_size"),
        ({"text_config": {"num_hidden_layers": 100_000}}, "num_hidden_layers of .*: got 100000, wanted at most 200"),
        ({"vision_config": []}, "is not a usable config"),
    ],
)
def test_what_is_no_dual_encoder_is_refused_in_one_line(folder, fields, told):
    change_config(folder, **fields)
    for use in (lambda: from_pretrained(f"hf:{folder}"), lambda: describe_model(folder, prefix="hf:")):
        with pytest.raises(UserError, match=told) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_remote_code_is_refused_without_the_prefix_too(folder):
    change_config(folder, auto_map={"AutoModel": "modeling.Mine"})
    with pytest.raises(UserError, match="wants to run code"):
        from_pretrained(folder)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is there")
def test_a_folder_that_needs_timm_says_so(tmp_path):
    vision = {"vision_config": {"architecture": "vit_pe_core_base_patch16_224"}}
    content = {"model_type": "pe_video", "text_config": {"model_type": "modernbert"}, "video_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 16, "width": 16}}')
    with pytest.raises(UserError, match="pip install timm") as caught:
        describe_model(tmp_path)
    assert "\n" not in str(caught.value)


CROP = {"size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16}}


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({}, ((0.5,) * 3, (0.5,) * 3, "squash", "bilinear")),
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}, ((0.1, 0.2, 0.3), (1, 2, 3), "squash", "bilinear")),
        ({"do_normalize": False, "resample": 3}, ((0.0,) * 3, (1.0,) * 3, "squash", "bicubic")),
        (CROP, ((0.5,) * 3, (0.5,) * 3, "center_crop", "bilinear")),
        ({"size": 16, "do_center_crop": True, "crop_size": 16}, ((0.5,) * 3, (0.5,) * 3, "center_crop", "bilinear")),
        ({"rescale_factor": 2 / 255}, ((0.25,) * 3, (0.25,) * 3, "squash", "bilinear")),
    ],
)
@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_pixels_are_made_as_the_folder_says(folder, content, wanted, file):
    whole = content if file.startswith("pre") else {"image_processor": content, "processor_class": "X"}
    (folder / file).write_text(json.dumps(whole))
    config = from_pretrained(folder).config
    mean, std, resize, interpolation = wanted
    assert config.pixel_mean == pytest.approx(mean) and config.pixel_std == pytest.approx(std)
    transform = evaluation_transform(config, {})
    assert (transform.resize, transform.interpolation, transform.image_size) == (resize, interpolation, 16)
    assert evaluation_transform(config, {"data": {"resize": "squash"}}).resize == "squash"
    assert evaluation_transform(config, {}, "center_crop").resize == "center_crop"


@pytest.mark.parametrize("content", [{"resample": 0}, {"size": {"height": 8, "width": 16}}, {"image_mean": 0.5}])
def test_pixels_that_cannot_be_made_are_refused(content):
    with pytest.raises(UserError):
        pixel_fields(content, "siglip", source="a folder")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_our_transform_makes_the_pixels_of_transformers_own(kind):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    processor = CLIPImageProcessorPil() if kind == "clip" else SiglipImageProcessorPil()
    fields = pixel_fields(json.loads(processor.to_json_string()), kind, source=kind)
    rows, columns = np.mgrid[:240, :360]  # of which 224 x 336 is no fraction: transformers cuts those off, we round
    channels = [np.sin(rows / (9 + 7 * one)) * np.cos(columns / (11 + 5 * one)) for one in range(3)]
    image = ((np.stack(channels, -1) + 1) * 127).astype(np.uint8)
    wanted = np.asarray(processor(images=image, return_tensors="np")["pixel_values"])[0].transpose(1, 2, 0)
    transform = TransformConfig(image_size=fields["image_size"], resize=fields["resize"])
    ours = transform_frames(image[None], transform, rng=None)[0] / 255.0
    ours = (ours - fields["pixel_mean"]) / fields["pixel_std"]
    level = 1 / 255 / min(fields["pixel_std"])
    # PIL rounds between its two passes.
    assert np.abs(ours - wanted).max() < 2.5 * level and np.abs(ours - wanted).mean() < 0.2 * level


def test_a_damaged_folder_of_ours_is_refused(folder, tmp_path):
    save_pretrained(from_pretrained(folder), tmp_path / "own")
    shutil.copytree(tmp_path / "own", tmp_path / "other")
    change_config(tmp_path / "own", image_size=15)
    with pytest.raises(UserError, match="image_size: got 15, wanted a multiple of 8"):
        from_pretrained(tmp_path / "own")
    change_config(tmp_path / "other", hf={"model_type": "bert"})
    with pytest.raises(UserError, match="hf.model_type: got bert"):
        from_pretrained(tmp_path / "other")
    for hf, told in (({"model_type": [1]}, r"hf.model_type: got \[1\]"), ({"model_type": "videoprism"}, "without")):
        change_config(tmp_path / "other", hf=hf)
        with pytest.raises(UserError, match=told):
            from_pretrained(tmp_path / "other")
