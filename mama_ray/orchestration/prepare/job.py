"""What the prepare job is asked for."""

from typing import Literal

from pydantic import Field

from mama_ray.config import AddedLater, Config, MayChange
from mama_ray.data.clip import CLIP_ID_PATTERN, CaptionSource
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.video.settings import DecodeConfig, SceneConfig, TranscodeConfig, WindowConfig


class PrepareJob(Config):
    """What to prepare, and how."""

    videos: str | None = None
    """Folder or URI of the videos, each a file or a folder VIDEO.mp4/ of chunks that are named by the second in which
    they start, as 0.mp4 and 300.mp4; without annotations every video in it becomes a clip without caption. Without
    videos and shards the embedded corpus is made and prepared.
    """

    annotations: str | None = None
    """CSV, TSV, JSON lines or Parquet with the column video (a path in the folder) and what is known of each clip."""

    annotations_format: AddedLater[Literal["table", "egoclip"]] = "table"
    """What the annotations are: a table of the columns above, or EgoClip's file of Ego4D's narrations, as EgoVLP has
    it.
    """

    shards: str | None = None
    """Folder or URI of WebDataset shards that something else wrote: they are indexed in place."""

    output: MayChange[str] = "runs/embedded/shards"
    """Folder or URI for the shards and their index; not used with --shards."""

    corpus: MayChange[CorpusConfig] = CorpusConfig()
    """The embedded corpus that is made where neither videos nor shards are given."""

    corpus_folder: MayChange[str] = "runs/embedded"
    """Folder or URI for its videos."""

    clips_per_shard: int = Field(default=256, ge=1)
    """Clips in a shard, which is also what one task does."""

    shard_name: str = Field(default="clips", pattern=f"^{CLIP_ID_PATTERN}$")
    """First part of the shards' file names."""

    shard_folders: AddedLater[int] = Field(default=0, ge=0, le=4096)
    """Folders over which the shards are spread by a hash of their number, as 0a3/clips-000007.tar: an object store
    bounds the requests to one prefix. 0 puts them beside the index; 256 serves from some ten thousand shards on. Not
    with --shards."""

    default_split: Literal["train", "meta", "val", "test"] | None = "train"
    """Split of clips whose annotations name none."""

    split: AddedLater[tuple[str, ...]] = ()
    """Splits to draw for clips whose annotations name none, by video: pairs of a split and its share, or its number of
    clips (rounded up to whole videos), as train 0.9 val 0.05 test 0.05 meta 500. Not with --shards.
    """

    scenes: AddedLater[SceneConfig] = SceneConfig()
    """Cut whole videos, of which a table names neither times nor captions, into a clip for each scene. A number of
    clips in --split is one of videos then. Not with --shards.
    """

    window: AddedLater[WindowConfig] = WindowConfig()
    """Which frames of its video a clip has. Not with --shards."""

    transcode: AddedLater[TranscodeConfig] = TranscodeConfig()
    """How clips are made smaller before they are stored, so that training need not wait for decoding. Not with
    --shards."""

    unknown_columns: Literal["refuse", "ignore"] = "refuse"
    """What to do with annotation columns that nobody reads and, in foreign shards, with names of splits that are not
    known.
    """

    caption_source: CaptionSource = "human"
    """Source of the captions of foreign shards that name none; with --videos the annotations' column source says it."""

    damaged_shards: MayChange[Literal["refuse", "quarantine"]] = "refuse"
    """Whether a damaged foreign shard fails the job or is left out of the index and named in the quarantine."""

    max_quarantined: MayChange[int | None] = Field(default=None, ge=0)
    """Most clips that may be refused before the job fails; null for any number, as long as one clip is good."""

    num_trial_frames: int = Field(default=4, ge=1)
    """Frames decoded on trial from every clip; a clip without them is refused."""

    cpus_per_task: MayChange[float] = Field(default=1.0, gt=0)
    """CPUs that one shard's task takes: it decodes in a child process with one thread."""

    decode: DecodeConfig = DecodeConfig()
    """Limits of the video decoder."""
