"""VGT, the video graph transformer for question answering (arXiv 2207.05342), with the state-dict names of its release.

It sees no pixels but what a detector and a ResNet made of them: 8 clips of 4 frames, a frame's feature and those of its
regions, slot r of a clip's frames being one object. A graph over each frame's regions becomes one vector per frame;
words enter behind that (step 8), so the mean of the clips before it, which has seen no text, is the video feature of
the contrast; the mean of a text's words, padding left out, is the text feature.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from mama_ray.config import Config
from mama_ray.errors import UserError
from mama_ray.models.answering import ChoosesFromList, JointEncoder
from mama_ray.models.clip_vip.model import LogitScaleConfig
from mama_ray.models.distilbert import LAYER_NORM_EPS, Transformer
from mama_ray.models.settings import QuestionForm
from mama_ray.models.vgt.answers import AnswerList
from mama_ray.models.vgt.blocks import (
    BOX_NUMBERS,
    NUM_POSITIONS,
    Graph,
    Positions,
    RegionEncoder,
    add_attended_words,
    attention_pooling,
    initialise,
)
from mama_ray.models.vgt.language import TextConfig, TextModel

# Frames' and regions' features by name, or side by side in one array as `data.region_features.packing` puts them.
Features = dict[str, Tensor] | Float[Tensor, "batch clips frames packed"]


class VgtConfig(Config):
    """Everything that fixes the shapes of a VGT model; the defaults are the published model's for NExT-QA."""

    text: TextConfig = TextConfig()
    """The language model."""
    vocab_size: int = Field(default=30522, gt=1, le=1 << 22)
    """Token ids."""
    context_length: int = Field(default=38, gt=1, le=1 << 16)
    """Most tokens of a text: NExT-QA 38, TGIF's choices 20, open-ended questions 20."""
    answer_length: int | None = Field(default=5, ge=3, le=1 << 16)
    """Most tokens of an answer of the list; null is context_length."""
    question_form: QuestionForm = "release"
    """What "question [SEP] option" loses where it is too long: its end, or as fitted the question's."""
    image_size: int = Field(default=224, gt=0, le=1 << 12)
    """Height and width of the pictures whose frame features these are."""
    num_frames: int = Field(default=32, gt=0, le=1 << 14)
    """Frames per video; a multiple of num_clips."""
    num_clips: int = Field(default=8, gt=0, le=NUM_POSITIONS)
    """Clips per video."""
    num_regions: int = Field(default=5, gt=0, le=100)
    """Regions per frame: 5 for NExT-QA, else 10; their square is a multiple of num_edge_heads."""
    frame_dim: int = Field(default=2048, gt=0, le=1 << 14)
    """Channels of a frame's feature."""
    region_dim: int = Field(default=2048, gt=0, le=1 << 14)
    """Channels of a region's feature, without its box."""
    box_width: int = Field(default=128, gt=0, le=1 << 14)
    """Channels that a box becomes."""
    width: int = Field(default=512, gt=0, le=1 << 14)
    """Channels of nodes, frames, clips and words."""
    ff_width: int = Field(default=1024, gt=0, le=1 << 16)
    """Hidden width of the transformers' feed-forward part."""
    num_layers: int = Field(default=1, gt=0, le=200)
    """Layers of each transformer."""
    num_heads: int = Field(default=8, gt=0, le=1 << 10)
    """Heads of the node and the clip transformer."""
    num_edge_heads: int = Field(default=5, gt=0, le=1 << 10)
    """Heads of the edge transformer, whose width is num_regions squared."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Rate in training, of everything but the language model."""
    sees_words_in_frames: bool = False
    """Let words enter at the frames as well: TGIF's action and transition."""
    edge_transformer: Literal["graph_trans", "graph_trans_n"] = "graph_trans"
    """Its name among the weights; the second in a model that was pre-trained with another number of regions."""
    has_pretraining_heads: bool = True
    """Carry the weights of the heads that the release was pre-trained with, which nothing reads."""
    logit_scale: LogitScaleConfig = LogitScaleConfig()
    """Start, bounds and freezing of the logit scale, which the release has none of."""
    gradient_checkpointing: bool = False
    """Recompute each transformer layer in backward: less memory, more time, the same gradients."""

    @property
    def tokenizer_kind(self) -> Literal["clip", "bert"]:
        """Whose tokens a fresh model reads: BERT's word-pieces, whose rows are filled up with [PAD], or our own."""
        return "clip" if self.text.pad_token_id is None else "bert"

    @model_validator(mode="after")
    def _sizes_divide(self) -> "VgtConfig":
        for name, value, of in (
            ("num_frames", self.num_frames, self.num_clips),
            ("width", self.width, self.num_heads),
            ("num_regions squared", self.num_regions**2, self.num_edge_heads),
            ("width", self.width, 2),
        ):
            if value % of:
                raise ValueError(f"{name}: got {value}, wanted a multiple of {of}")
        return self


class Vgt(nn.Module, JointEncoder, ChoosesFromList):
    """VGT; construct it from a config for a fresh start, or with `models.pretrained.from_pretrained`.

    `frames` are a dict of float features, of any range that the weights were made for:
    "frames" (batch, clips, frames, frame_dim) and "regions" (batch, clips, frames, num_regions, region_dim + 5); or one
    tensor with the regions' channels behind the frames'.
    """

    model_type: ClassVar[str] = "vgt"
    answering_parts = ("position_v", "mmt", "vqproj")

    def __init__(self, config: VgtConfig) -> None:
        super().__init__()
        self.config = config
        width, dropout = config.width, config.dropout
        sizes = {"hidden_width": config.ff_width, "dropout": dropout, "num_layers": config.num_layers}
        self.encode_vid = RegionEncoder(config.region_dim, config.box_width, width)
        self.linear_video = nn.Linear(config.frame_dim, width)
        self.norm_video = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.position_v = Positions(width, dropout)
        self.mmt = Transformer(width, config.num_heads, **sizes)
        self.vqproj = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width))
        if config.has_pretraining_heads:
            self._add_pretraining_heads()
        initialise(self)  # the release's start: what follows keeps torch's own
        self.amodel = TextModel(config.text, config.vocab_size, width)
        self.merge_fr = nn.Sequential(nn.Linear(2 * width, width), nn.ELU())
        self.satt_pool = attention_pooling(width)
        self.gnn = Graph(width, width // 2, dropout)
        self.add_module(config.edge_transformer, Transformer(config.num_regions**2, config.num_edge_heads, **sizes))
        self.ttrans = Transformer(width, config.num_heads, **sizes)
        self.logit_scale = nn.Parameter(
            torch.tensor(config.logit_scale.init), requires_grad=not config.logit_scale.frozen
        )
        self.answers = AnswerList()
        self.set_gradient_checkpointing(config.gradient_checkpointing)

    def _add_pretraining_heads(self) -> None:
        width = self.config.width
        self.vocab_transform = nn.Linear(width, width)
        self.vocab_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.vocab_projector = nn.Linear(width, self.config.vocab_size)
        self.crossmodal_matching = nn.Linear(width, 1)
        for head in (self.vocab_transform, self.vocab_norm, self.vocab_projector, self.crossmodal_matching):
            head.requires_grad_(False)

    @property
    def logit_scale_bounds(self) -> tuple[float, float]:
        """Smallest and largest log scale."""
        return self.config.logit_scale.min, self.config.logit_scale.max

    def forward(
        self, frames: Features, token_ids: Int[Tensor, "texts tokens"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "texts dim"]]:
        """Return (video_features, text_features); the entry that DistributedDataParallel wraps."""
        return self.encode_video(frames), self.encode_text(token_ids)

    def encode_video(self, frames: Features) -> Float[Tensor, "batch dim"]:
        """Return the mean of the clips before any word has entered, unit norm, at least float32."""
        return self.pool_frames(self.encode_frames(frames))

    def pool_frames(self, encoded: Float[Tensor, "batch clips frames width"]) -> Float[Tensor, "batch dim"]:
        """Return `encode_video`'s features from what `encode_frames` returned."""
        return _to_unit_norm(encoded.mean(dim=(1, 2)))

    def encode_text(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts dim"]:
        """Return the mean of a text's words without padding, unit norm, at least float32."""
        words = self.amodel(token_ids)
        is_word = self.amodel.is_word(token_ids)[:, :, None].to(words.dtype)
        return _to_unit_norm((words * is_word).sum(dim=1))

    def encode_frames(self, frames: Features) -> Float[Tensor, "batch clips frames width"]:
        """Return a vector per frame that has seen its regions and no text (steps 1 to 7): one for all questions."""
        frames = self._unpacked(frames)
        dtype = self.linear_video.weight.dtype
        whole, regions = frames["frames"].to(dtype), frames["regions"].to(dtype)
        batch, num_clips = regions.shape[:2]
        whole = self.norm_video(F.gelu(self.linear_video(whole)))
        nodes = self.encode_vid(rearrange(regions, "batch clips frames r d -> batch (clips frames) r d"))
        nodes = rearrange(nodes, "batch (clips frames) r d -> (batch clips r) frames d", clips=num_clips)
        nodes = rearrange(self.ttrans(nodes), "(clips r) frames d -> (clips frames) r d", r=regions.shape[3])
        nodes = nodes + self.gnn(nodes, self._edges(nodes, regions.shape[2]))
        graphs = (self.satt_pool(nodes) * nodes).sum(dim=1)
        graphs = rearrange(graphs, "(batch clips frames) d -> batch clips frames d", batch=batch, clips=num_clips)
        return self.merge_fr(torch.cat([whole, graphs], dim=-1))

    def _edges(self, nodes: Float[Tensor, "graphs r width"], num_frames: int) -> Float[Tensor, "graphs r r"]:
        """Return row-normalised edges, each of which has seen itself in the other frames of its clip."""
        scores = rearrange(self.gnn.scores(nodes), "(clips frames) r s -> clips frames (r s)", frames=num_frames)
        scores = self.get_submodule(self.config.edge_transformer)(scores)
        return rearrange(scores, "clips frames (r s) -> (clips frames) r s", r=nodes.shape[1]).softmax(dim=-1)

    def answer(self, frames: Features, question: dict[str, Tensor]) -> Float[Tensor, "batch answers"]:
        """Score the options of `question["option_token_ids"]` (batch, options, tokens), or the answers of the list
        (`set_answers`) for `question["token_ids"]` (batch, tokens); float32 logits. An option reads
        "question [SEP] option"."""
        return self.answer_encoded(self.encode_frames(frames), question)

    def answer_encoded(
        self, encoded: Float[Tensor, "batch clips frames width"], question: dict[str, Tensor]
    ) -> Float[Tensor, "batch answers"]:
        """Do as `answer`, from what `encode_frames` returned: rows of one video may be repeated."""
        if "option_token_ids" in question:
            options = question["option_token_ids"]
            words = self.amodel(options.flatten(0, 1)).unflatten(0, options.shape[:2])
            fused = self._fuse(encoded, words, options)
            # The mean is over all positions, padding included, as in the release.
            return _promoted(torch.einsum("bd,bod->bo", fused, words.mean(dim=2)))
        words = self.amodel(question["token_ids"])
        fused = self._fuse(encoded, words[:, None], question["token_ids"][:, None])
        answers = self.answers.vectors(self.amodel, grows=torch.is_grad_enabled() or self.training)
        return _promoted((fused @ answers.mT) * (words.mean(dim=1) @ answers.mT))

    def set_answers(self, token_ids: Int[Tensor, "answers tokens"]) -> None:
        """Give the answer list of open-ended questions, encoded anew in every training step; it is not a weight."""
        self.answers.set(token_ids.to(self.logit_scale.device))

    def _fuse(
        self,
        frames: Float[Tensor, "batch clips frames width"],
        words: Float[Tensor, "batch options tokens width"],
        token_ids: Int[Tensor, "batch options tokens"],
    ) -> Float[Tensor, "batch width"]:
        """Return the video vector that has seen the words (steps 8 and 9)."""
        clips = frames.shape[1]
        # One length per question, that of its longest candidate: the release lets shorter ones' padding be seen.
        lengths = self.amodel.is_word(token_ids.flatten(0, 1)).sum(dim=1).unflatten(0, token_ids.shape[:2]).amax(dim=1)
        lengths = lengths.clamp(min=1)  # what fills up a batch has no words, and a softmax over none is NaN
        if self.config.sees_words_in_frames:
            seen = _through_candidates(rearrange(frames, "b clips frames d -> b (clips frames) d"), words, lengths)
            frames = rearrange(seen, "b (clips frames) d -> b clips frames d", clips=clips)
        tokens = _through_candidates(frames.mean(dim=2), words, lengths)
        return self.vqproj(self.mmt(self.position_v(tokens)).mean(dim=1))

    def _unpacked(self, frames: Features) -> dict[str, Tensor]:
        """Return features by name, of the model's shapes; UserError for others."""
        config = self.config
        if isinstance(frames, Tensor):
            whole, regions = frames[..., : config.frame_dim], frames[..., config.frame_dim :]
            places = config.num_regions if regions.shape[-1] % config.num_regions == 0 else 1
            frames = {"frames": whole, "regions": regions.unflatten(-1, (places, -1))}
        num_frames = config.num_frames // config.num_clips
        clips = (config.num_clips, num_frames)
        wanted = {
            "frames": (*clips, config.frame_dim),
            "regions": (*clips, config.num_regions, config.region_dim + BOX_NUMBERS),
        }
        for name, shape in wanted.items():
            if tuple(frames[name].shape[1:]) != shape:
                raise UserError(
                    f"features {name!r} are not of the model's shape",
                    got=tuple(frames[name].shape[1:]),
                    wanted=shape,
                    remedy="build the model with num_clips, num_frames, num_regions and dims of the features",
                )
        return frames

    @torch.no_grad()
    def clamp_logit_scale_(self) -> None:
        """Put the logit scale back within its bounds, in place; call it after each optimiser step."""
        self.logit_scale.clamp_(*self.logit_scale_bounds)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in backward."""
        return self.amodel.gradient_checkpointing

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Turn recomputation of the transformers' layers in backward on or off."""
        for part in (self.amodel, self.mmt, self.ttrans, self.get_submodule(self.config.edge_transformer)):
            part.gradient_checkpointing = enabled


def _through_candidates(
    tokens: Float[Tensor, "batch tokens width"],
    words: Float[Tensor, "batch options words width"],
    lengths: Int[Tensor, " batch"],
) -> Float[Tensor, "batch tokens width"]:
    """Let tokens see each candidate's words, and keep the largest of each channel."""
    num_options = words.shape[1]
    repeated = tokens.repeat_interleave(num_options, dim=0)
    seen = add_attended_words(repeated, words.flatten(0, 1), lengths.repeat_interleave(num_options))
    return seen.unflatten(0, words.shape[:2]).amax(dim=1)


def _promoted(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _to_unit_norm(features: Tensor) -> Tensor:
    return F.normalize(_promoted(features), dim=-1)
