"""Embed every clip of a split on the cluster: Ray Data decodes on CPU tasks, a pool of actors holds the model.

The one design fact: pipeline rows are batch numbers over a table in the object store, and features go from the actors
to Parquet in the storage, so neither frames, captions nor features pass through the driver. The last, partial batch is
a batch like any other. A clip that cannot be decoded keeps its row, with the reason; a storage that fails is no fact
about a clip, and ends the job.
"""

import logging
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, DataContext

from mama_ray.data.captions import CaptionMode, caption_for_evaluation
from mama_ray.data.reading import read_payloads
from mama_ray.data.region_features.assemble import features_at
from mama_ray.data.region_features.packing import pack_features
from mama_ray.data.region_features.table import NoFeatures
from mama_ray.data.shard import ShardError
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.settings import DecodeConfig
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.data.video.view_loading import load_views
from mama_ray.data.video.views import ViewConfig
from mama_ray.masking import mask_text, masked_errors
from mama_ray.models.feature_encoder import FeatureEncoder
from mama_ray.orchestration.cluster.own_device import own_device
from mama_ray.orchestration.cluster.results import user_errors
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

# Unlike the actors' CPUs: operators with equal resources are fused, and decoding would then queue inside the actors.
_DECODE_CPUS, _ACTOR_CPUS = 0.5, 1.0
_FEATURES = pa.list_(pa.float32())


@dataclass(frozen=True)
class EmbedPlan:
    """What the tasks and actors need; picklable and small. `table` holds the split's rows of the index."""

    table: ray.ObjectRef
    num_clips: int
    shards: str
    model: str
    caption_mode: CaptionMode | None
    """How a clip's captions become texts; None embeds none."""
    text_length: int
    num_frames: int
    transform: TransformConfig
    decode: DecodeConfig
    batch_size: int
    features: str | None = None
    """Table of features that the model reads instead of pixels, and how many regions of a frame."""
    num_regions: int = 0
    views: ViewConfig = field(default_factory=ViewConfig)
    """What is seen of a clip; its video_features are those of its views, one behind the other."""
    is_raw: bool = False
    """Projections as they are, not of unit norm."""
    tells_classes: bool = False
    """A clip's features are the logits of the model's heads."""

    @property
    def clips_per_batch(self) -> int:
        """Clips decoded at a time: batch_size is of views."""
        return max(1, self.batch_size // self.views.num_views)


def embed_clips(plan: EmbedPlan, output: str, *, num_actors: int, use_gpu: bool) -> None:
    """Write one Parquet row per clip under the URI `output`: row, error, video_features, text_features (flat).

    Raises UserError where a storage fails for good.
    """
    folder = Place.of(output)
    folder.make_folder()
    DataContext.get_current().enable_progress_bars = False
    num_batches = -(-plan.num_clips // plan.clips_per_batch)

    def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        start = int(batch["id"][0]) * plan.clips_per_batch
        return decode_clips(plan, np.arange(start, min(start + plan.clips_per_batch, plan.num_clips)))

    batches = ray.data.range(num_batches, override_num_blocks=num_batches)
    frames = batches.map_batches(decode, batch_size=1, num_cpus=_DECODE_CPUS)
    features = frames.map_batches(
        ClipEmbedder,
        fn_constructor_args=(plan,),
        batch_size=plan.clips_per_batch,
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, num_actors)),
        num_cpus=_ACTOR_CPUS,
        num_gpus=1 if use_gpu else 0,
    )
    features.set_name("embed")  # in Ray's dashboard
    with user_errors(), storage_errors(output):
        features.write_parquet(folder.path, filesystem=folder.filesystem)


def decode_clips(plan: EmbedPlan, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return row, frames (batch, frames, height, width, 3) uint8, of several views (batch, views, frames, ...), or
    packed features, and error ('' for a clip that was decoded).

    Raises UserError where the storage fails for good.
    """
    folder = Place.of(plan.shards)
    records = ray.get(plan.table).take(pa.array(rows)).to_pylist()
    if plan.features is not None:
        return {"row": np.asarray(rows, np.int64), **_read_features(plan.features, records, plan.num_regions)}
    size = plan.transform.image_size
    frames = np.zeros((len(rows), plan.views.num_views, plan.num_frames, size, size, 3), np.uint8)
    errors = []

    payloads = read_payloads(folder, records)
    for position, (record, payload) in enumerate(zip(records, payloads, strict=True)):
        try:
            if isinstance(payload, ShardError):
                raise payload
            frames[position] = load_views(
                payload, views=plan.views, num_frames=plan.num_frames, transform=plan.transform, decode=plan.decode
            )
            errors.append("")
        except (DecodeError, ShardError) as error:
            errors.append(mask_text(str(error)) or type(error).__name__)
            logger.warning("clip %s of %s cannot be used: %s", record["clip_id"], record["shard"], error)
    seen = frames if plan.views.num_views > 1 else frames[:, 0]
    return {"row": np.asarray(rows, np.int64), "frames": seen, "error": np.array(errors, dtype=object)}


def _read_features(uri: str, records: list[dict], num_regions: int) -> dict[str, np.ndarray]:
    source = features_at(uri)
    frames = np.zeros((len(records), *source.shape.packed_shape(num_regions)), np.float32)
    errors = []
    for position, record in enumerate(records):
        try:
            found = source.read(record["clip_id"], record["sha256"], num_regions=num_regions)
            frames[position] = pack_features(found)
            errors.append("")
        except NoFeatures as error:
            errors.append(mask_text(str(error)))
            logger.warning("%s", error)
    return {"frames": frames, "error": np.array(errors, dtype=object)}


def load_encoder(plan: EmbedPlan) -> FeatureEncoder:
    """Load the plan's model as it is asked for, onto the GPU of this task or actor if it has one."""
    options = {"batch_size": plan.batch_size, "device": own_device()}
    if plan.tells_classes:
        return FeatureEncoder.load_classifier(plan.model, **options)
    return FeatureEncoder.load(plan.model, text_length=plan.text_length, is_raw=plan.is_raw, **options)


class ClipEmbedder:
    """Holds the model in an actor and turns decoded clips and their captions into features."""

    @masked_errors
    def __init__(self, plan: EmbedPlan) -> None:
        self._plan = plan
        self._captions = None if plan.caption_mode is None else ray.get(plan.table)["captions"]
        self._encoder = load_encoder(plan)

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        frames = np.asarray(batch["frames"])
        video_features = self._features_of(frames).reshape(len(frames), -1)
        if self._captions is None:
            text_features = [np.zeros(0, np.float32)] * len(frames)
        else:
            texts = [self._texts(row) for row in batch["row"]]
            whole = self._encoder.text_features(list(chain.from_iterable(texts)))
            text_features = np.split(whole, np.cumsum([len(own) for own in texts])[:-1])
        columns = {
            "row": pa.array(batch["row"], pa.int64()),
            "error": pa.array([str(error) for error in batch["error"]], pa.string()),
            "video_features": pa.array(list(video_features), _FEATURES),
            "text_features": pa.array([own.reshape(-1) for own in text_features], _FEATURES),
        }
        return pa.table(columns)

    def _features_of(self, frames: np.ndarray) -> np.ndarray:
        """Return the features of all views; a batch may be smaller or larger than what is encoded at a time."""
        views = frames if self._plan.views.num_views == 1 else frames.reshape(-1, *frames.shape[2:])
        size = self._plan.batch_size
        parts = [views[start : start + size] for start in range(0, len(views), size)]
        return np.concatenate([self._encoder.video_features(part) for part in parts])

    def _texts(self, row: int) -> list[str]:
        assert self._captions is not None and self._plan.caption_mode is not None
        texts = caption_for_evaluation(self._captions[int(row)].as_py(), self._plan.caption_mode)
        return [texts] if isinstance(texts, str) else texts


def read_features(folder: Place, num_clips: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, str]]:
    """Return video features (clips, dim), text features (texts, dim), the clip row of each text, and {row: error}.

    Everything ascends by row. Raises RuntimeError unless every row of the split is there: a lost one would flatter.
    """
    table = pq.read_table(folder.path, filesystem=folder.filesystem).sort_by("row")
    rows = table["row"].to_numpy()
    keep = np.r_[True, np.diff(rows) > 0] if len(rows) else np.zeros(0, bool)  # a task that ran twice wrote twice
    table, rows = table.filter(pa.array(keep)), rows[keep]
    if not np.array_equal(rows, np.arange(num_clips)):
        raise RuntimeError(f"features of {len(rows)} rows were written, wanted {num_clips}")
    video_features = np.stack([np.asarray(one, np.float32) for one in _lists(table["video_features"])])
    dim = video_features.shape[1]
    texts = [one.reshape(-1, dim) for one in _lists(table["text_features"])]
    text_rows = np.repeat(rows, [len(own) for own in texts])
    errors = {int(row): error for row, error in zip(rows, table["error"].to_pylist(), strict=True) if error}
    return video_features, np.concatenate(texts), text_rows, errors


def _lists(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Return the rows of a list column as numpy arrays without making Python floats."""
    whole = column.combine_chunks()
    values = whole.values.to_numpy()
    offsets = whole.offsets.to_numpy()
    return [values[start:stop] for start, stop in pairwise(offsets)]
