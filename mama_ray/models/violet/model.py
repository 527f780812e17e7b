"""VIOLETv2 (arXiv 2209.01540), which answers questions, and two pooled heads that make it a dual encoder.

The parts of the release keep its parameter names. Its towers meet in the fusion encoder alone: `encode_video` reads
Video Swin's tokens and `encode_text` BERT's embeddings, so neither sees the other, as the angular margin needs.
"""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from pydantic import Field, model_validator
from torch import Tensor, nn

from mama_ray.config import Config
from mama_ray.data.video.settings import Interpolation
from mama_ray.errors import UserError
from mama_ray.models.answering import JointEncoder
from mama_ray.models.attention import visible_tokens
from mama_ray.models.bert import INIT_STD, BertEmbeddings, BertEncoder, BertMlmHead, initialise_bert
from mama_ray.models.clip_vip.model import LogitScaleConfig
from mama_ray.models.settings import QuestionForm
from mama_ray.models.transformer import EncoderConfig
from mama_ray.models.violet.frame_encoder import FrameEncoder
from mama_ray.models.violet.swin import SwinConfig

IMAGENET_PIXEL_MEAN = (0.485, 0.456, 0.406)
IMAGENET_PIXEL_STD = (0.229, 0.224, 0.225)
TEMPERATURE = 0.05  # of VIOLET's retrieval


class VioletConfig(Config):
    """Everything that fixes the shapes of a VIOLET model and how it reads pixels; the defaults are VIOLETv2's."""

    tokenizer_kind: ClassVar[str] = "bert"

    video: SwinConfig = SwinConfig()
    """Video Swin."""
    fusion: EncoderConfig = EncoderConfig(width=768, num_layers=12, num_heads=12)
    """The encoder that sees video and text; its width is also that of the embeddings."""
    num_text_layers: int = Field(default=2, gt=0, le=100)
    """Layers of the small tower that pools BERT's embeddings for the dual encoder."""
    dim: int = Field(default=256, gt=0, le=1 << 16)
    """Width of the joint feature space of the dual encoder."""
    image_size: int = Field(default=224, gt=0, le=1 << 12)
    """Frame height and width in pixels; a multiple of what a token of Video Swin's end spans (32)."""
    num_frames: int = Field(default=5, gt=0, le=1 << 10)
    """Frames per clip in fine-tuning."""
    max_frames: int = Field(default=6, gt=0, le=1 << 10)
    """Rows of the frames' place embedding: more frames cannot be fused."""
    max_grid: int = Field(default=14, gt=0, le=1 << 10)
    """Tokens along a side that the table of spatial places holds."""
    vocab_size: int = Field(default=30522, gt=1, le=1 << 22)
    """Word-pieces; the masked word is predicted among them."""
    context_length: int = Field(default=30, gt=1, le=1 << 16)
    """Most tokens of a text of the dual encoder, [CLS] and [SEP] included."""
    num_positions: int = Field(default=512, gt=1, le=1 << 16)
    """Most tokens of a prompt: rows of BERT's position embedding."""
    pad_id: int = Field(default=0, ge=0)
    """Token that fills texts up, and that no text sees."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of BERT's embeddings, hidden states and attention weights, in training."""
    order_embedding: bool = True
    """Whether the weights hold the order embedding of a pre-training task, which nothing reads here."""
    num_task_embeddings: int = Field(default=10, ge=0, le=1 << 10)
    """Rows of the task embeddings that the weights hold, which nothing reads here; 0 is none."""
    mlm_head: bool = True
    """Whether there is the head that predicts a masked word, and so answers."""
    question_form: QuestionForm = "release"
    """How a multiple choice is put: [SEP] before each option and the end cut, or fitted, as `prompts.py` says."""
    pixel_mean: tuple[float, float, float] = IMAGENET_PIXEL_MEAN
    """RGB mean, full scale 1; belongs to the weights, not to the data."""
    pixel_std: tuple[float, float, float] = IMAGENET_PIXEL_STD
    """RGB standard deviation, full scale 1."""
    resize: Literal["squash", "center_crop"] = "center_crop"
    """How evaluation makes frames square where nobody says otherwise: the release's short side and centre."""
    interpolation: Interpolation = "bilinear"
    """With which filter frames are scaled: the release's."""
    linear_init: Literal["bert", "fan_in"] = "bert"
    """Start of the linear layers: bert: N(0, 0.02), which suits wide ones; fan_in: N(0, 1 / inputs), without which a
    narrow model from scratch hardly hears of the video at [MASK]."""
    logit_scale: LogitScaleConfig = LogitScaleConfig(init=math.log(1 / TEMPERATURE))
    """Start, bounds and freezing of the logit scale."""
    gradient_checkpointing: bool = False
    """Recompute each layer in backward: less memory, about a third more time, the same gradients."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> "VioletConfig":
        stride = self.video.stride
        if self.image_size % stride:
            raise ValueError(f"image_size: got {self.image_size}, wanted a multiple of {stride}")
        if self.image_size > stride * self.max_grid:
            raise ValueError(f"image_size: got {self.image_size}, wanted at most {stride * self.max_grid}")
        if self.num_frames > self.max_frames:
            raise ValueError(f"num_frames: got {self.num_frames}, wanted at most max_frames {self.max_frames}")
        if self.context_length > self.num_positions:
            raise ValueError(f"context_length: got {self.context_length}, wanted at most {self.num_positions}")
        if self.pad_id >= self.vocab_size:
            raise ValueError(f"pad_id: got {self.pad_id}, wanted an id below vocab_size {self.vocab_size}")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"pixel_std: got {self.pixel_std}, wanted positive values")
        return self


class TextEmbedder(nn.Module):
    """The holder of BERT's embeddings under the name that the release gives them."""

    def __init__(self, config: VioletConfig) -> None:
        super().__init__()
        self.emb_txt = BertEmbeddings(
            config.fusion.width,
            vocab_size=config.vocab_size,
            num_positions=config.num_positions,
            dropout=config.dropout,
        )


class Violet(nn.Module, JointEncoder):
    """Dual encoder and answerer; construct it from a config, or with `models.pretrained.from_pretrained`.

    What the dual encoder adds to the release (`OWN_PARTS`): `video_projection` of the mean of Video Swin's tokens,
    `text_tower` and `text_projection` of the mean of its tokens over BERT's embeddings, and `logit_scale`.
    """

    model_type: ClassVar[str] = "violet"
    answering_parts = ("enc_img.emb_*", "enc_img.fc", "enc_img.norm", "trsfr", "fc_mtm")

    def __init__(self, config: VioletConfig) -> None:
        super().__init__()
        self.config = config
        width = config.fusion.width
        tasks = nn.Parameter(torch.empty(config.num_task_embeddings, width), requires_grad=False)
        self.register_parameter("emb_task", tasks if config.num_task_embeddings else None)
        if config.num_task_embeddings:
            nn.init.normal_(tasks, std=INIT_STD)
        self.enc_img = FrameEncoder(
            config.video,
            width,
            image_size=config.image_size,
            max_frames=config.max_frames,
            max_grid=config.max_grid,
            has_order=config.order_embedding,
            pixel_mean=config.pixel_mean,
            pixel_std=config.pixel_std,
        )
        self.enc_txt = TextEmbedder(config)
        self.trsfr = BertEncoder(config.fusion, config.dropout)
        self.fc_mtm = BertMlmHead(width, config.vocab_size) if config.mlm_head else None
        self.video_projection = nn.Linear(config.video.width, config.dim, bias=False)
        tower = config.fusion.model_copy(update={"num_layers": config.num_text_layers})
        self.text_tower = BertEncoder(tower, config.dropout)
        self.text_projection = nn.Linear(width, config.dim, bias=False)
        self.logit_scale = nn.Parameter(
            torch.tensor(config.logit_scale.init), requires_grad=not config.logit_scale.frozen
        )
        for part in (self.enc_txt, self.trsfr, self.fc_mtm, self.text_tower):
            if part is not None:
                initialise_bert(part)
        if config.linear_init == "fan_in":
            for part in (self.enc_img, self.trsfr, self.fc_mtm, self.text_tower):
                _initialise_by_inputs(part)
        nn.init.normal_(self.video_projection.weight, std=config.video.width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=width**-0.5)
        self.register_buffer("answer_token_ids", None, persistent=False)
        self.set_gradient_checkpointing(config.gradient_checkpointing)

    @property
    def logit_scale_bounds(self) -> tuple[float, float]:
        """Smallest and largest log scale."""
        return self.config.logit_scale.min, self.config.logit_scale.max

    def forward(
        self, frames: Num[Tensor, "batch frames height width c"], token_ids: Int[Tensor, "texts tokens"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "texts dim"]]:
        """Return (video_features, text_features); the entry that DistributedDataParallel wraps."""
        return self.encode_video(frames), self.encode_text(token_ids)

    def encode_video(self, frames: Num[Tensor, "batch frames height width c"]) -> Float[Tensor, "batch dim"]:
        """Embed RGB clips with values 0 to 255, of any number of frames, to unit norm, at least float32."""
        return self.pool_frames(self.encode_frames(frames))

    def encode_frames(
        self, frames: Num[Tensor, "batch frames height width c"]
    ) -> Float[Tensor, "batch frames rows columns dim"]:
        """Return Video Swin's tokens, which serve the contrast and every question of a clip."""
        return self.enc_img.swin(frames)

    def pool_frames(self, encoded: Float[Tensor, "batch frames rows columns width"]) -> Float[Tensor, "batch dim"]:
        """Return `encode_video`'s features from `encode_frames`' tokens."""
        return _to_unit_norm(self.video_projection(encoded.mean(dim=(1, 2, 3))))

    def encode_text(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts dim"]:
        """Embed texts of BERT's word-pieces, filled up with `pad_id`, to unit norm, at least float32."""
        is_token = visible_tokens(token_ids, self.config.pad_id)
        hidden = self.text_tower(self.enc_txt.emb_txt(token_ids), is_token)
        share = is_token[..., None].to(hidden.dtype) / is_token.sum(dim=1)[:, None, None]
        return _to_unit_norm(self.text_projection((hidden * share).sum(dim=1)))

    def fuse(
        self, encoded: Float[Tensor, "batch frames rows columns width"], token_ids: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Return the last hidden states of the texts' tokens, which have seen the clips that `encode_frames` read."""
        video = self.enc_img.place(encoded)
        seen = torch.ones(video.shape[:2], dtype=torch.bool, device=video.device)
        is_token = torch.cat([seen, visible_tokens(token_ids, self.config.pad_id)], dim=1)
        tokens = torch.cat([video, self.enc_txt.emb_txt(token_ids).to(video.dtype)], dim=1)
        return self.trsfr(tokens, is_token)[:, video.shape[1] :]

    def set_answers(self, token_ids: Int[Tensor, " answers"] | None) -> None:
        """Let open-ended questions be answered from these word-pieces, in this order; None is the whole vocabulary."""
        if token_ids is not None and (token_ids.min() < 0 or token_ids.max() >= self.config.vocab_size):
            raise UserError(
                "an answer of the list is no word-piece of the vocabulary",
                got=f"ids {int(token_ids.min())} to {int(token_ids.max())}",
                wanted=f"ids 0 to {self.config.vocab_size - 1}",
                remedy="leave out answers of several pieces: they count as wrong",
            )
        self.answer_token_ids = None if token_ids is None else token_ids.to(self.logit_scale.device)

    def answer(
        self, frames: Num[Tensor, "batch frames height width c"], question: dict[str, Tensor]
    ) -> Float[Tensor, "batch answers"]:
        """Score what may stand at [MASK] of the prompts that `prompts.py` makes."""
        return self.answer_encoded(self.encode_frames(frames), question)

    def answer_encoded(
        self, encoded: Float[Tensor, "batch frames rows columns width"], question: dict[str, Tensor]
    ) -> Float[Tensor, "batch answers"]:
        """Do as `answer`, from `encode_frames`' tokens, whose rows may be repeated for the questions of one clip.

        Open-ended: a logit for each answer of `set_answers`, else for each word-piece. Multiple choice, where
        `digit_token_ids` (batch, options) are given: one for each option's digit.
        """
        if self.fc_mtm is None:
            raise UserError("the model has no head that answers", got="mlm_head false", wanted="mlm_head true")
        if "token_ids" not in question:
            raise UserError(
                "VIOLET answers prompts",
                got=sorted(question),
                wanted="token_ids and mask_positions",
                remedy="make them by mama_ray.models.violet.prompts, options included",
            )
        hidden = self.fuse(encoded, question["token_ids"])
        rows = torch.arange(len(hidden), device=hidden.device)
        logits = self.fc_mtm(hidden[rows, question["mask_positions"]])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if "digit_token_ids" in question:
            return logits.gather(1, question["digit_token_ids"])
        return logits if self.answer_token_ids is None else logits[:, self.answer_token_ids]

    @torch.no_grad()
    def clamp_logit_scale_(self) -> None:
        """Put the logit scale back within its bounds, in place; call it after each optimiser step."""
        self.logit_scale.clamp_(*self.logit_scale_bounds)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether a part recomputes its layers in backward."""
        return any(part.gradient_checkpointing for part in self._checkpointed())

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Turn recomputation of the layers in backward on or off."""
        for part in self._checkpointed():
            part.gradient_checkpointing = enabled

    def _checkpointed(self) -> list[nn.Module]:
        return [*self.enc_img.swin.layers, self.trsfr, self.text_tower]


@torch.no_grad()
def _initialise_by_inputs(part: nn.Module | None) -> None:
    """Start the linear layers within a part so that they keep the size of what they read, words' logits left out."""
    for name, module in () if part is None else part.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("decoder"):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)


def _to_unit_norm(features: Tensor) -> Tensor:
    # Half precision would leave norms off by 1e-3, which the angular margin's arc cosine enlarges.
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
