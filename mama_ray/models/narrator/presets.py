"""Named sizes.

| preset | video | language model | gated blocks | parameters |
|---|---|---|---|---|
| gated_tiny | width 96, 3 layers, 48 px, patch 24 | width 96, 3 layers | 3 | 1,386,438 at 512 tokens |
| tsf_b_gpt2 | TimeSformer B/16 | gpt2 | 12 | 325,140,504 |
| tsf_l_gpt2 | TimeSformer L/14 | gpt2 | 12 | 614,998,808 |
| tsf_b_gpt2_xl | TimeSformer B/16 | gpt2-xl | 24 | 2,415,191,664 |
| tsf_l_gpt2_xl | TimeSformer L/14 | gpt2-xl | 24 | 2,705,049,968 |
| tsf_l_hr_gpt2_xl | TimeSformer L/14, 336 px | gpt2-xl | 16 | 2,459,451,232 |
"""

from mama_ray.models.narrator.config import GatedNarratorConfig, Gpt2Config
from mama_ray.models.timesformer.key_layouts import PIXELS
from mama_ray.models.timesformer.presets import PRESETS as VIDEO_PRESETS

_LAVILA_PIXELS = dict(
    zip(("pixel_mean", "pixel_std"), (tuple(value / 255 for value in one) for one in PIXELS["lavila"]), strict=True)
)
_GPT2 = Gpt2Config()
_GPT2_XL = Gpt2Config(width=1600, num_layers=48, num_heads=25)


def _of_video(name: str, language: Gpt2Config, **fields: object) -> GatedNarratorConfig:
    video = VIDEO_PRESETS[name]
    sizes = {field: getattr(video, field) for field in ("video", "image_size", "patch_size", "num_frames")}
    return GatedNarratorConfig.model_validate(sizes | _LAVILA_PIXELS | {"language": language} | fields)


_TINY_VOCABULARY = 512

PRESETS: dict[str, GatedNarratorConfig] = {
    # For training on a CPU within minutes; the vocabulary is replaced by that of a tokenizer trained on the corpus.
    "gated_tiny": GatedNarratorConfig(
        video=VIDEO_PRESETS["tsf_tiny"].video,
        image_size=48,
        patch_size=24,
        num_frames=4,
        place_init_std=VIDEO_PRESETS["tsf_tiny"].place_init_std,
        language=Gpt2Config(
            width=96,
            num_layers=3,
            num_heads=3,
            vocab_size=_TINY_VOCABULARY,
            num_positions=128,
            init_std=0.1,  # 0.02 is for widths of hundreds
        ),
        interpolation="bicubic",  # the decoder's own, which costs least
        num_queries=16,
        pooler_heads=2,
        bos_id=0,
        eos_id=0,
    ),
    "tsf_b_gpt2": _of_video("tsf_b", _GPT2),
    "tsf_l_gpt2": _of_video("tsf_l", _GPT2),
    "tsf_b_gpt2_xl": _of_video("tsf_b", _GPT2_XL, cross_every=2, pooler_heads=25),
    "tsf_l_gpt2_xl": _of_video("tsf_l", _GPT2_XL, cross_every=2, pooler_heads=25),
    "tsf_l_hr_gpt2_xl": _of_video("tsf_l_hr", _GPT2_XL, cross_every=3, pooler_heads=25),
}
