"""Named model sizes.

| preset | video | fusion | frames | parameters |
|---|---|---|---|---|
| violet_tiny | width 48 to 96, 4 blocks, 48 px, patch 8 | width 96, 3 layers | 4 | about 1.0 M at 512 word-pieces |
| violet_v2 | Swin-B, 224 px | BERT-base | 5 | 221,548,034 of the release, 14,634,497 of the dual heads |
"""

import math

from mama_ray.models.clip_vip.model import LogitScaleConfig
from mama_ray.models.transformer import EncoderConfig
from mama_ray.models.violet.model import VioletConfig
from mama_ray.models.violet.swin import SwinConfig

PRESETS: dict[str, VioletConfig] = {
    # For training from scratch on a CPU within minutes; the vocabulary is replaced by that of a tokenizer trained on
    # the corpus. Few clips and short runs: no dropout, and CLIP's start of the logit scale.
    "violet_tiny": VioletConfig(
        video=SwinConfig(embed_dim=48, depths=(2, 2), num_heads=(3, 6), window=(4, 3, 3), patch_size=8, drop_path=0.0),
        fusion=EncoderConfig(width=96, num_layers=3, num_heads=3),
        num_text_layers=2,
        dim=64,
        image_size=48,
        num_frames=4,
        max_frames=6,
        max_grid=4,
        vocab_size=512,
        context_length=32,
        num_positions=64,
        dropout=0.0,
        order_embedding=False,
        num_task_embeddings=0,
        resize="squash",
        interpolation="bicubic",  # the decoder's own, which costs least
        linear_init="fan_in",
        logit_scale=LogitScaleConfig(init=math.log(1 / 0.07)),
    ),
    "violet_v2": VioletConfig(),
}
