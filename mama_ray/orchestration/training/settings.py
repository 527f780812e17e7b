"""What a training job is asked for about its data."""

from typing import Annotated, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from mama_ray.captioning.quality import FLAGS, FLAGS_OF_VERSION_1, Flag
from mama_ray.config import AddedLater, Config, Location
from mama_ray.data.captions import check_probabilities
from mama_ray.data.clip import CaptionSource
from mama_ray.data.plan import PlanConfig
from mama_ray.data.video.settings import DecodeConfig, Resize

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class RecordConfig(Config):
    """What is written down of single samples while they are learned from."""

    every: int = Field(0, ge=0)
    """Steps between two whose samples are recorded: 1 records every step, 0 none. Loss, weight and cosine of each clip
    of such a step go to record/ in the run's folder, for jobs/audit.py."""

    from_epoch: float = Field(0.0, ge=0.0)
    """Passes over the training split before the first recorded step."""


class DataConfig(Config):
    """How clips become training samples."""

    num_frames: int = Field(4, ge=1)
    """Frames sampled from each clip."""

    features: AddedLater[str | None] = None
    """Folder or URI of a table that jobs/features.py wrote of the shards, for a model that reads features instead of
    pixels (VGT); num_frames is then its clips times their frames."""

    resize: Resize = "squash"
    """How frames become squares in training; evaluation takes the centre where training crops at random."""

    captions: dict[str, float] | None = None
    """Mixing probability per caption source, e.g. {human: 0.5, generated: 0.5}, renormalised over the sources that a
    clip has; null draws evenly of a clip's captions."""

    shares: AddedLater[dict[CaptionSource, Fraction] | None] = None
    """Share of each caption source in the samples of an epoch, e.g. {human: 0.5, generated: 0.5}, summing to 1: exact
    in every epoch, whatever number of clips has which, where `captions` draws for each clip of the sources that it has.
    A source's place is a clip that has it, with one of its captions of it; an epoch has a place per clip."""

    caption_tables: Location[tuple[str, ...]] = ()
    """Folders or URIs of finished caption tables, whose captions join those of their clips in train, never in val and
    test; `captions` says how often they are drawn. The report's weights by kind go by a clip's human caption."""

    exclude: AddedLater[Location[str | None]] = None
    """CSV of clips and captions that train and meta are without: column clip_id and, where one caption is meant,
    caption_id, as jobs/audit.py writes it. val and test keep theirs."""

    exclude_flags: tuple[Flag, ...] = FLAGS
    """Flags of the quality gate that keep a caption of the tables out of training; by default every flag does, which
    config.yaml says by naming those of the first version."""

    meta_captions: Literal["human", "all"] = "human"
    """human: the meta-set has none of the tables' captions, and is drawn as it would be without tables; all: theirs
    come after its own, so they count for clips that had no caption."""

    classes: AddedLater[Location[tuple[str, ...]]] = ()
    """Files that give clips their classes: EPIC-KITCHENS-100's csv (of train and val, where there are both), EGTEA's
    lists (train_split1.txt), a csv with clip_id and columns verb, noun or action, or JSON of {clip_id: {verb: [3],
    noun: [1, 2]}}. () takes those of the embedded corpus. Read where objective.loss or task.kind asks for classes, or
    positive_relevance does."""

    positive_relevance: AddedLater[float | None] = Field(None, ge=0.0, lt=1.0)
    """In every epoch a clip is paired with a text drawn evenly of the training captions whose relevance to it is more
    than this (EPIC-KITCHENS retrieval: 0.1), in the place of its own; null takes its own. Relevance is the mean of the
    shares of common verbs and common nouns."""

    flip: AddedLater[float] = Field(0.0, ge=0.0, le=1.0)
    """Share of clips that are mirrored left to right in training, of classifiers alone: to a text left is left."""

    caption_mode: Literal["draw", "paragraph"] = "draw"
    """draw: one caption of a clip in every epoch; paragraph: all of them joined, in training and validation, as DiDeMo
    and ActivityNet are evaluated."""

    plan: PlanConfig = PlanConfig()
    """Shuffling of clips within windows of shards."""

    decode: DecodeConfig = DecodeConfig()
    """Limits of the video decoder."""

    meta_draw: int = Field(0, ge=0)
    """Clips drawn from train, evenly over topics, to be the meta-set (and left out of train); 0 uses the meta split."""

    tokenizer: Location[str | None] = None
    """Folder with tokenizer.json, vocab.json and merges.txt, or vocab.txt; null trains a small one on the training
    captions."""

    tokenizer_kind: AddedLater[Literal["clip", "bert"]] = "clip"
    """Kind of the one that is trained: clip, or bert's word-pieces (VIOLET, VGT), then on the run's questions, too."""

    vocab_size: int = Field(1024, ge=514)
    """Size of the tokenizer that is trained where none is given."""

    context_length: int = Field(24, ge=4)
    """Tokens per caption, start and end included, of a tokenizer that is trained here."""

    text_length: AddedLater[int | None] = Field(None, ge=4)
    """Tokens at which a tokenizer that is read cuts a text, where the model takes fewer than its folder says (BERT's
    says 512; VIOLET takes 30, VGT 20 or 38); null takes what the folder says."""

    @property
    def source_shares(self) -> dict[str, float]:
        """The shares, none where nothing is said of them."""
        return {} if self.shares is None else dict(self.shares)

    @property
    def mix(self) -> dict[str, float] | None:
        """The sources that captions are drawn from, with what is said of them; None where any will do."""
        return self.captions if self.shares is None else self.source_shares

    @field_validator("captions")
    @classmethod
    def _captions_are_drawn(cls, captions: dict[str, float] | None) -> dict[str, float] | None:
        check_probabilities(captions)
        return captions

    @field_validator("shares")
    @classmethod
    def _shares_sum_to_one(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        if shares is not None and abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares must sum to 1: got {sum(shares.values()):g}")
        return shares

    @field_validator("exclude_flags")
    @classmethod
    def _all_are_all(cls, flags: tuple[Flag, ...]) -> tuple[Flag, ...]:
        return FLAGS if set(flags) >= set(FLAGS_OF_VERSION_1) else flags

    # A run or a sweep that was begun when there were fewer flags goes on: its config.yaml says the same as today's.
    @field_serializer("exclude_flags")
    def _as_version_1(self, flags: tuple[Flag, ...]) -> tuple[Flag, ...]:
        return FLAGS_OF_VERSION_1 if flags == FLAGS else flags

    @model_validator(mode="after")
    def _captions_fit_their_mode(self) -> "DataConfig":
        if self.shares is not None and self.captions is not None:
            raise ValueError("shares gives each source its share of the samples: give no captions, which draw by clip")
        if self.caption_mode == "paragraph" and (self.captions is not None or self.shares is not None):
            raise ValueError("caption_mode paragraph joins all captions: give no probabilities per source")
        if self.caption_mode == "paragraph" and self.caption_tables:
            raise ValueError(
                "caption_mode paragraph would join generated captions to the others: give no caption_tables"
            )
        if self.positive_relevance is not None and (self.shares is not None or self.caption_mode == "paragraph"):
            raise ValueError(
                "positive_relevance draws a text of like clips in the place of a clip's own: give no shares, and "
                "caption_mode draw"
            )
        if self.flip and self.features is not None:
            raise ValueError("flip mirrors pixels: give no features")
        if len(set(self.caption_tables)) < len(self.caption_tables):
            raise ValueError("caption_tables names a table twice, which would double its captions")
        return self
