"""Named model sizes.

| preset | video | text | frames | parameters |
|---|---|---|---|---|
| tsf_tiny | width 96, 3 layers, 48 px, patch 24 | width 64, 3 layers | 4 | 810,209 at 512 tokens |
| tsf_b | TimeSformer B/16 | CLIP's of B/16 | 4 | 177,662,977 |
| tsf_l | TimeSformer L/14 | CLIP's of L/14 | 4 | 527,513,857 |
| tsf_l_hr | TimeSformer L/14, 336 px | DistilBERT | 4 | 471,143,937 |
| tsf_joint_b, tsf_joint_l | ViT B/16, L/14 over space and time at once | CLIP's | 4 | 149,296,129, 426,703,105 |
"""

from mama_ray.models.timesformer.model import LOGIT_SCALE, TimesformerConfig
from mama_ray.models.transformer import EncoderConfig

_FROZEN = LOGIT_SCALE.model_copy(update={"frozen": True})  # as in the published recipes
_LARGE = EncoderConfig(width=1024, num_layers=24, num_heads=16)
_B = TimesformerConfig(logit_scale=_FROZEN)
_L = TimesformerConfig(
    video=_LARGE, text=EncoderConfig(width=768, num_layers=12, num_heads=12), patch_size=14, logit_scale=_FROZEN
)

PRESETS: dict[str, TimesformerConfig] = {
    # For training from scratch on a CPU within minutes; the vocabulary is replaced by that of a tokenizer trained on
    # the corpus. A temporal embedding of zeros would leave it blind to time at first.
    "tsf_tiny": TimesformerConfig(
        video=EncoderConfig(width=96, num_layers=3, num_heads=3),
        text=EncoderConfig(width=64, num_layers=3, num_heads=2),
        dim=64,
        image_size=48,
        patch_size=24,
        vocab_size=512,
        context_length=32,
        num_text_positions=64,
        place_init_std=0.3,
    ),
    "tsf_b": _B,
    "tsf_l": _L,
    "tsf_l_hr": TimesformerConfig(
        video=_LARGE,
        text=EncoderConfig(width=768, num_layers=6, num_heads=12),
        text_tower="distilbert",
        image_size=336,
        patch_size=14,
        vocab_size=30522,
        logit_scale=_FROZEN,
    ),
    "tsf_joint_b": _B.model_copy(update={"attention": "joint"}),
    "tsf_joint_l": _L.model_copy(update={"attention": "joint"}),
}
