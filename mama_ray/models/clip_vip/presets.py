"""Named model sizes.

| preset | video | text | frames | parameters |
|---|---|---|---|---|
| tiny | width 96, 3 layers, 48 px, patch 24 | width 64, 3 layers | 4 | about 0.70 M at 512 tokens |
| base_32 | ViT-B/32 | CLIP's | 12 | 151,288,833 |
| base_16 | ViT-B/16 | CLIP's | 12 | 149,632,257 |
"""

import math

from mama_ray.models.clip_vip.model import ClipVipConfig, LogitScaleConfig
from mama_ray.models.transformer import EncoderConfig

PRESETS: dict[str, ClipVipConfig] = {
    # For training from scratch on a CPU within minutes: CLIP's own start for the logit scale, and a vocabulary that a
    # tokenizer trained on the corpus replaces. A temporal embedding of zeros would leave it blind to time at first.
    "tiny": ClipVipConfig(
        video=EncoderConfig(width=96, num_layers=3, num_heads=3),
        text=EncoderConfig(width=64, num_layers=3, num_heads=2),
        dim=64,
        image_size=48,
        patch_size=24,
        num_frames=4,
        vocab_size=512,
        context_length=32,
        place_init_std=0.3,
        logit_scale=LogitScaleConfig(init=math.log(1 / 0.07)),
    ),
    "base_32": ClipVipConfig(patch_size=32),
    "base_16": ClipVipConfig(patch_size=16),
}
