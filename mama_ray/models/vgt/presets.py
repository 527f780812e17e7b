"""Named model sizes.

| preset | text | regions | parameters |
|---|---|---|---|
| vgt_tiny | width 32, 2 layers, filled up with end-of-text | 5 | about 0.07 M at 512 tokens |
| vgt | bert-base-uncased | 5 (NExT-QA; else `num_regions=10`) | 133,701,985 and the logit scale |
"""

import math

from mama_ray.models.clip_vip.model import LogitScaleConfig
from mama_ray.models.vgt.language import TextConfig
from mama_ray.models.vgt.model import VgtConfig

PRESETS: dict[str, VgtConfig] = {
    "vgt_tiny": VgtConfig(
        text=TextConfig(width=32, num_layers=2, num_heads=2, ff_width=64, num_positions=64, pad_token_id=None),
        vocab_size=512,
        context_length=32,
        answer_length=None,  # a small vocabulary's words have many pieces
        width=32,
        ff_width=64,
        num_heads=4,
        box_width=8,
        frame_dim=64,
        region_dim=64,
        has_pretraining_heads=False,
        logit_scale=LogitScaleConfig(init=math.log(1 / 0.07)),
    ),
    "vgt": VgtConfig(),
}
