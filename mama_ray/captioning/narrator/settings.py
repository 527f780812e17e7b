"""What a narrator is, is shown and is asked, and what of it is trained; without torch, as a command line names it."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.captioning.prompts import PromptConfig
from mama_ray.config import AddedLater, Config
from mama_ray.data.video.settings import Resize

TrainedParts = Literal["all", "language_and_projector", "projector"]
GatedParts = Literal["gated_blocks", "language_and_gated_blocks", "all"]
LossMean = Literal["tokens", "padded"]
LlavaPreset = Literal["tiny"]
# Those of models/narrator/presets.py.
GatedPreset = Literal[
    "gated_tiny", "tsf_b_gpt2", "tsf_l_gpt2", "tsf_b_gpt2_xl", "tsf_l_gpt2_xl", "tsf_l_hr_gpt2_xl"
]  # fmt: skip
# Parts that do not train.
_FROZEN: dict[GatedParts, tuple[str, ...]] = {
    "gated_blocks": ("video_encoder", "language_model"),
    "language_and_gated_blocks": ("video_encoder",),
    "all": (),
}


class NarratorInput(Config):
    """What a narrator is shown of a clip, and asked."""

    prompt: PromptConfig = PromptConfig(text="describe the video")
    """The question; a narrator answers the one it was trained with."""

    grid: ClipGridConfig = ClipGridConfig()
    """The picture of a clip."""


class FrameInput(Config):
    """What of a clip a gated narrator is shown, which sees frames and no grid."""

    num_frames: int | None = Field(None, ge=1, le=256)
    """Frames, one of each equal part of a clip; null is the preset's number, or that of what training starts from."""

    resize: Resize = "random_resized_crop"
    """How frames become squares in training: LaViLa's one random crop per clip, or center_crop, where sizes and places
    are what captions tell. Outside training it is the short side and the centre."""


class GatedModelConfig(Config):
    """What a gated narrator of GPT-2 starts from and how it learns; for presets and folders of that kind alone."""

    video_encoder: str | None = None
    """Run, checkpoint, folder, URI, hub id or released file of a TimeSformer dual encoder whose video tower is taken;
    null starts an untrained one."""

    language_model: str | None = None
    """Folder, URI or hub id of a GPT-2 in Hugging Face's layout, with its tokenizer; null starts an untrained one,
    with a tokenizer trained on the captions."""

    sizes: dict[str, int | float] | None = None
    """Replaces sizes of the preset, by dotted name, e.g. {patch_size: 16, num_queries: 32, language.num_layers: 4}. A
    part that is started from something that has learned keeps its own, and so does a pretrained narrator, with which
    they are refused."""

    trains: GatedParts = "gated_blocks"
    """gated_blocks: cross-attention, gates, queries and pooler learn, the video tower and the language model stay
    (LaViLa); language_and_gated_blocks: the language model learns too; all. What is not started from something that
    has learned must train."""

    gates: float = Field(0.0, ge=0.0, le=3.0)
    """What the gates start at, behind a tanh. 0, LaViLa's, leaves what the language model writes as it is; one that
    starts untrained as well learns sooner to look at the clip where they start open, at 1."""

    loss: LossMean = "tokens"
    """tokens: the mean over the tokens of captions; padded: that of LaViLa's release, over all places of a caption,
    which makes it smaller the shorter captions are, and never learns token 0. It wants another learning rate."""


class NarratorModelConfig(Config):
    """Which narrator is trained, and what of it."""

    preset: LlavaPreset | GatedPreset = "tiny"
    """Kind and size of a model that starts from scratch or from parts: tiny is a LLaVA, the others are gated narrators
    of GPT-2 (docs/narrator.md)."""

    pretrained: str | None = None
    """Folder, URI or hub id of a narrator to start from: a LLaVA-1.5 in Hugging Face's layout or a gated narrator. It
    takes the place of the preset."""

    vocab_size: int = Field(640, ge=260)
    """Most tokens of the tokenizer that is trained for a preset; the words of a small corpus need fewer."""

    trains: TrainedParts = "all"
    """Of a LLaVA. all; language_and_projector leaves the vision tower as it is, as LLaVA's second stage; projector as
    its first. Every worker holds 16 bytes for each parameter that trains."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    gated: AddedLater[GatedModelConfig] = GatedModelConfig()
    """Of a gated narrator."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "NarratorModelConfig":
        gated = self.gated
        if self.pretrained is not None:
            for name in ("video_encoder", "language_model", "sizes", "gates"):
                if getattr(gated, name) != GatedModelConfig.model_fields[name].default:
                    raise ValueError(f"gated.{name} is of a preset; a pretrained narrator has its own")
        elif self.preset in get_args(GatedPreset):
            stays = _FROZEN[gated.trains]
            if untrained := [name for name in stays if getattr(gated, name) is None]:
                missing = " and ".join(f"gated.{name}" for name in untrained)
                raise ValueError(
                    f"gated.trains {gated.trains} leaves other parts as they are, here untrained: give {missing}, or "
                    "gated.trains all"
                )
        return self
