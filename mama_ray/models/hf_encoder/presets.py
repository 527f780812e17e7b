"""Named sizes: none. These models come with their weights; from scratch there are CLIP-ViP's presets."""

from mama_ray.models.hf_encoder.model import HfEncoderConfig

PRESETS: dict[str, HfEncoderConfig] = {}
