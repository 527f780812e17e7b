"""How well captions fit their clips by a dual encoder: the cosines that the quality gate's flag `dissimilar` is about.

A pass of its own over the committed parts: the dual encoder sees frames, not grids, and needs no place beside the
engine on a GPU. It leaves one file per chunk, so a job that was killed goes on here as well; beside them stands which
weights they are by, as a run that is named may have another best checkpoint when the job goes on.
"""

import contextlib
import json
import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from mama_ray.captioning.postprocess import PostprocessConfig, postprocess
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.tokenizer_match import refuse_other_vocabulary
from mama_ray.errors import UserError
from mama_ray.masking import masked_errors
from mama_ray.models.feature_encoder import FeatureEncoder
from mama_ray.models.hub import require_weights
from mama_ray.models.pretrained import describe_model
from mama_ray.models.run_config import RUN_CONFIG, evaluation_transform, trained_frames, training_config
from mama_ray.models.weight_files import hash_weights
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.parts import (
    CHUNK_CLIPS,
    CLIPS_PER_FILE,
    WORK_FOLDER,
    list_parts,
    read_part,
    rows_of_part,
)
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.source import ShardSource
from mama_ray.orchestration.cluster.pipelines import dataset_of, runs_of
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.evaluation.embed import EmbedPlan, decode_clips
from mama_ray.storage.node_copies import node_copy
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries
from mama_ray.training.manifest import resolve_checkpoint

logger = logging.getLogger(__name__)

_SCORES, _MODEL_NAME = f"{WORK_FOLDER}/similarity", "model.json"
_DECODE_CPUS, _ACTOR_CPUS, _TASK_CPUS = 0.5, 1.0, 0.5
_SCHEMA = pa.schema([("row", pa.int64()), ("sample", pa.int32()), ("similarity", pa.float32())])


def score_captions(plan: CaptionPlan, model: EmbedPlan, clean: PostprocessConfig, pool: PoolConfig) -> str:
    """Write the similarity of every committed caption that has none by these weights yet; return their hash.

    Scorers stand where the pool's engines did.
    """
    weights_sha256 = result_of(_enter.remote(plan.output, model.model))
    chunks = _unscored.remote(plan.output, plan.num_clips)
    num_chunks = ray.get(_count.remote(chunks))
    if not num_chunks:
        return weights_sha256
    logger.info("similarity of the captions of %d chunks", num_chunks)

    def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return decode_chunk(model, int(ray.get(chunks)[int(batch["id"][0])]))

    def scored(numbers: range) -> Dataset:
        scores = dataset_of(numbers).map_batches(
            decode, batch_size=1, num_cpus=_DECODE_CPUS, label_selector=dict(pool.decode_labels) or None
        )
        scores = scores.map_batches(
            CaptionScorer,
            fn_constructor_args=(plan, model, clean, weights_sha256),
            batch_size=1,  # of chunks
            compute=ActorPoolStrategy(min_size=1, max_size=pool.max_size),
            num_cpus=_ACTOR_CPUS,
            num_gpus=1 if pool.gpus_per_engine else 0,
            resources=pool.resources or None,
            label_selector=dict(pool.engine_labels) or None,
        )
        scores.set_name("caption_similarity")  # in Ray's dashboard
        return scores

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    with DataContext.current(context):
        for numbers in runs_of(num_chunks):
            for _ in scored(numbers).iter_batches(batch_size=None, prefetch_batches=0):
                pass
    return weights_sha256


def find_dual_encoder(plan: CaptionPlan, uri: str) -> EmbedPlan:
    """Resolve a run, a checkpoint or a model folder, in a task; UserError for what is no dual encoder."""
    return result_of(_find_dual_encoder.remote(plan, uri))


def read_similarities(folder: Place, number: int) -> dict[tuple[int, int], float]:
    """Return {(row, sample): cosine} of the captions of one file of the table; empty where nothing was scored."""
    files = [file for file in _scores(folder, number).files() if file.name.endswith(".parquet")]
    rows = [row for file in files for row in pq.read_table(file.path, filesystem=file.filesystem).to_pylist()]
    return {(row["row"], row["sample"]): row["similarity"] for row in rows}


def decode_chunk(model: EmbedPlan, chunk: int) -> dict[str, np.ndarray]:
    """Return a chunk as one row: chunk, row (1, clips), frames (1, clips, frames, height, width, 3) and is_decoded.

    A row, as Ray Data merges and cuts blocks and batches of several rows, and a score file is of one whole chunk.
    """
    start = chunk * CHUNK_CLIPS
    clips = decode_clips(model, np.arange(start, min(start + CHUNK_CLIPS, model.num_clips)))
    is_decoded = np.array([not error for error in clips["error"]])
    columns = {"row": clips["row"], "frames": clips["frames"], "is_decoded": is_decoded}
    return {"chunk": np.array([chunk]), **{name: column[None] for name, column in columns.items()}}


class CaptionScorer:
    """Holds a dual encoder in an actor and scores the captions of a decoded chunk; a clip that could not be decoded
    has no score.
    """

    @masked_errors
    def __init__(self, plan: CaptionPlan, model: EmbedPlan, clean: PostprocessConfig, weights_sha256: str) -> None:
        self._clean = clean
        self._folder = Place.of(plan.output)
        with node_copy(Place.of(model.model)) as folder:
            require_weights(folder, weights_sha256, model.model)
            self._encoder = FeatureEncoder.load(str(folder), text_length=model.text_length, batch_size=model.batch_size)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (chunk,), (rows,), (frames,) = batch["chunk"].tolist(), batch["row"], batch["frames"]
        is_decoded = np.asarray(batch["is_decoded"][0], bool)
        places = {int(row): place for place, row in enumerate(rows[is_decoded])}
        captions = [row for row in self._captions(chunk) if row["text"] and row["row"] in places]
        scores: list[dict] = []
        if captions:
            video_features = self._encoder.video_features(frames[is_decoded])
            texts = [postprocess(row["text"], self._clean) for row in captions]
            for row, features in zip(captions, self._encoder.text_features(texts), strict=True):
                cosine = float(features @ video_features[places[row["row"]]])
                scores.append({"row": row["row"], "sample": row["sample"], "similarity": cosine})
        table = pa.Table.from_pylist(scores, schema=_SCHEMA)
        place = _scores_of(self._folder, chunk)
        with storage_errors(place.uri):
            with_retries(lambda: place.write_whole(lambda stream: pq.write_table(table, stream)))
        return {"num_captions": np.array([len(scores)])}

    def _captions(self, chunk: int) -> list[dict]:
        # Parts may be of larger chunks than those of scores.
        own = range(chunk * CHUNK_CLIPS, (chunk + 1) * CHUNK_CLIPS)
        names = list_parts(self._folder, own.start // CLIPS_PER_FILE)
        names = [name for name in names if any(row in own for row in rows_of_part(name) or [])]
        parts = [read_part(self._folder, name) for name in names]
        return [row for part in parts if part is not None for row in part.to_pylist() if row["row"] in own]


def forget_similarities(folder: Place, rows: Sequence[int]) -> None:
    """Remove the scores of chunks some of whose captions, those of `rows`, are to be written again."""
    for chunk in sorted({row // CHUNK_CLIPS for row in rows}):
        with contextlib.suppress(FileNotFoundError):
            _scores_of(folder, chunk).delete_file()


def _scores_of(folder: Place, chunk: int) -> Place:
    return _scores(folder, chunk * CHUNK_CLIPS // CLIPS_PER_FILE) / f"{chunk:08d}.parquet"


def _scores(folder: Place, number: int) -> Place:
    return folder / f"{_SCORES}/{number:06d}"


@ray.remote(num_cpus=_TASK_CPUS, name="similarity: look at weights")
def _enter(output: str, model: str) -> str:
    """Return the hash of a model's weights; scores by others, as of an earlier checkpoint of the run, are removed."""
    with storage_errors(model), node_copy(Place.of(model)) as folder:
        weights_sha256 = hash_weights(folder)
    scores = Place.of(output) / _SCORES
    with storage_errors(scores.uri):
        ours = {"weights_sha256": weights_sha256}
        if (scores / _MODEL_NAME).read_json() != ours:
            if scores.files(recursive=True):
                logger.warning(
                    "captions are scored anew: their similarities are by other weights than those of %s", model
                )
                scores.delete_folder()
            (scores / _MODEL_NAME).write_whole(json.dumps(ours))
    return weights_sha256


@ray.remote(num_cpus=_TASK_CPUS, name="similarity: list chunks")
def _unscored(output: str, num_clips: int) -> np.ndarray:
    names = [file.name for file in (Place.of(output) / _SCORES).files(recursive=True)]
    done = [int(name[:8]) for name in names if name.endswith(".parquet") and name[:8].isdigit()]
    return np.setdiff1d(np.arange(-(-num_clips // CHUNK_CLIPS)), done)


@ray.remote(num_cpus=_TASK_CPUS, name="similarity: count chunks")
def _count(chunks: np.ndarray) -> int:
    return len(chunks)


@ray.remote(num_cpus=_TASK_CPUS, name="similarity: find dual encoder")
def _find_dual_encoder(plan: CaptionPlan, uri: str) -> EmbedPlan:
    if not isinstance(plan.source, ShardSource):  # what embeds clips reads them from shards
        raise UserError("similarity is of clips in shards", got=plan.source.description)
    try:
        folder = resolve_checkpoint(Place.of(uri))
        with folder.local() as local:
            config = describe_model(local)
            tokenizer = Tokenizer.from_directory(local)
            refuse_other_vocabulary(tokenizer, config.vocab_size, model=uri)
            training = training_config(local / RUN_CONFIG)
            transform = evaluation_transform(config, training)
    except OSError as error:
        raise UserError("the dual encoder cannot be read", got=f"{uri} ({' '.join(str(error).split())})") from error
    return EmbedPlan(
        table=plan.table,
        num_clips=plan.num_clips,
        shards=plan.source.shards,
        model=folder.uri,
        caption_mode="single",
        text_length=min(config.context_length, tokenizer.context_length),
        num_frames=trained_frames(training) or config.num_frames,
        transform=transform,
        decode=plan.show.decode,
        batch_size=CHUNK_CLIPS,
    )
