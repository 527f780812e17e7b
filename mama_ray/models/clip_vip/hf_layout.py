"""Hugging Face CLIPModel directories: their config read as ours, and the export that CLIPModel loads.

transformers is imported inside the functions: only these directories need it, and it takes seconds.
"""

from pathlib import Path
from typing import Any

import torch

from mama_ray.errors import UserError
from mama_ray.models.adapters import exported_state
from mama_ray.models.clip_vip.key_layouts import NEW_KEYS, POSITION_KEY
from mama_ray.models.clip_vip.model import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, ClipVip, ClipVipConfig
from mama_ray.models.patches import NUM_CHANNELS
from mama_ray.models.transformer import LAYER_NORM_EPS, EncoderConfig
from mama_ray.models.weight_files import WEIGHTS_NAME, read_json, write_json, write_safetensors

# Configs written before transformers 4.30 say 2 and mean "the largest id".
LEGACY_EOS_TOKEN_ID = 2


def config_from_hf(directory: Path, *, num_frames: int = 12, num_proxies: int = 4) -> ClipVipConfig:
    """Read a CLIPModel's config.json, and pixel constants from preprocessor_config.json where there is one.

    UserError for a damaged config and for a CLIP variant that this model cannot compute (another activation, epsilon or
    end-of-text rule).
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CLIPConfig

    path = directory / "config.json"
    content = read_json(path)
    try:
        hf = CLIPConfig.from_dict(content)
        _require_supported(directory, hf.text_config, hf.vision_config)
        return _config_of(hf, *_pixel_constants(directory), num_frames=num_frames, num_proxies=num_proxies)
    except UserError:
        raise
    # pydantic's errors are ValueErrors; the rest is what transformers raises for fields of a wrong kind or size.
    except (StrictDataclassError, TypeError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
        raise UserError(f"{path} is not a usable CLIP config", got=str(error), wanted="CLIPModel's fields") from error


def _config_of(hf: Any, mean: Any, std: Any, *, num_frames: int, num_proxies: int) -> ClipVipConfig:
    text, vision = hf.text_config, hf.vision_config
    return ClipVipConfig(
        video=_tower_from_hf(vision),
        text=_tower_from_hf(text),
        dim=hf.projection_dim,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        num_frames=num_frames,
        num_proxies=num_proxies,
        vocab_size=text.vocab_size,
        context_length=text.max_position_embeddings,
        pixel_mean=mean,
        pixel_std=std,
    )


@torch.no_grad()
def to_hf_clip(model: ClipVip, directory: str | Path) -> None:
    """Write a directory that transformers.CLIPModel loads: the image-text half of the model.

    The temporal embedding of one frame is added to the patch positions, so without extra proxies the image features
    equal `encode_video` of one frame exactly; extra proxies have no place in CLIPModel and are left out.
    """
    from transformers import CLIPConfig

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = model.config
    text = _tower_to_hf(config.text) | {
        "projection_dim": config.dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "eos_token_id": config.vocab_size - 1,
        "pad_token_id": config.vocab_size - 1,
        "bos_token_id": config.vocab_size - 2,
    }
    vision = _tower_to_hf(config.video) | {
        "projection_dim": config.dim,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
    }
    hf = CLIPConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=config.dim,
        logit_scale_init_value=config.logit_scale.init,
        architectures=["CLIPModel"],
    )
    state = {name: tensor for name, tensor in exported_state(model).items() if name not in NEW_KEYS}
    one_frame = model.vision_model.embeddings.temporal_at(1)[0]
    state[POSITION_KEY] = torch.cat([state[POSITION_KEY][:1], state[POSITION_KEY][1:] + one_frame])
    (directory / "config.json").unlink(missing_ok=True)  # a directory without it is not taken for a model
    write_safetensors(state, directory / WEIGHTS_NAME)
    write_json(_preprocessor(config), directory / "preprocessor_config.json")
    write_json(hf.to_dict(), directory / "config.json")


def _require_supported(directory: Path, text: Any, vision: Any) -> None:
    checks = [
        ("eos_token_id", text.eos_token_id, (LEGACY_EOS_TOKEN_ID, text.vocab_size - 1)),
        ("num_channels", vision.num_channels, (NUM_CHANNELS,)),
    ]
    for tower in (text, vision):
        checks += [
            ("hidden_act", tower.hidden_act, ("quick_gelu",)),
            ("layer_norm_eps", tower.layer_norm_eps, (LAYER_NORM_EPS,)),
            ("attention_dropout", tower.attention_dropout, (0.0,)),
            ("intermediate_size % hidden_size", tower.intermediate_size % tower.hidden_size, (0,)),
        ]
    for what, got, wanted in checks:
        if got not in wanted:
            raise UserError(f"{directory} is a CLIP variant that is not supported: {what}", got=got, wanted=wanted[-1])


def _tower_from_hf(tower: Any) -> EncoderConfig:
    return EncoderConfig(
        width=tower.hidden_size,
        num_layers=tower.num_hidden_layers,
        num_heads=tower.num_attention_heads,
        mlp_ratio=tower.intermediate_size // tower.hidden_size,
    )


def _tower_to_hf(tower: EncoderConfig) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "num_hidden_layers": tower.num_layers,
        "num_attention_heads": tower.num_heads,
        "intermediate_size": tower.width * tower.mlp_ratio,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": LAYER_NORM_EPS,
    }


def _pixel_constants(directory: Path) -> tuple[Any, Any]:
    path = directory / "preprocessor_config.json"
    preprocessor = read_json(path) if path.is_file() else {}
    return preprocessor.get("image_mean", CLIP_PIXEL_MEAN), preprocessor.get("image_std", CLIP_PIXEL_STD)


def _preprocessor(config: ClipVipConfig) -> dict[str, Any]:
    side = {"height": config.image_size, "width": config.image_size}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": config.image_size},
        "resample": 3,  # PIL's number for bicubic
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.pixel_mean),
        "image_std": list(config.pixel_std),
        "do_convert_rgb": True,
    }
