"""What a training run reads: the index split into train, meta and val, generated captions from caption tables, the
meta-set's hygiene, and the tokenizer.

Everything here runs in one remote task, so the driver holds references and a few counts, whatever the size of the
corpus.
"""

import hashlib
import json
import logging
import tempfile
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from mama_ray.auditing.exclusions import hash_exclusions, read_exclusions, require_known
from mama_ray.data.contents import hash_clips
from mama_ray.data.index import check_shards, hash_ids, read_index, select_split
from mama_ray.data.sources import rows_of_shares
from mama_ray.data.tokenizer import Tokenizer, WordPieceTokenizer
from mama_ray.errors import UserError
from mama_ray.models.weight_files import hash_weights
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.training.clip_choice import choose_clips
from mama_ray.orchestration.training.labels import add_classes
from mama_ray.orchestration.training.question_sources import read_run_questions, texts_of_training
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.orchestration.training.tokens import count_train_captions
from mama_ray.storage.manifest import require_whole_model
from mama_ray.storage.places import Place, storage_errors
from mama_ray.training.settings import TaskConfig

logger = logging.getLogger(__name__)

_COLUMNS = (
    "clip_id", "video_id", "shard", "offset", "num_bytes", "sha256", "source_sha256", "topic", "captions", "truth",
)  # fmt: skip
_SHARED = {"clip_id": "clips", "video_id": "videos", "sha256": "bytes"}
NO_TASK = TaskConfig()
_NUM_TOKENIZER_CAPTIONS = 200_000  # enough to train a vocabulary on; the rest adds nothing


@dataclass(frozen=True)
class RunData:
    """References to the splits' tables in the object store, with what a config needs to know of them."""

    train: ray.ObjectRef
    meta: ray.ObjectRef
    val: ray.ObjectRef
    tokenizer_files: ray.ObjectRef
    summary: dict


def load_run_data(
    shards: str,
    config: DataConfig,
    *,
    seed: int,
    tokenizer: str | None,
    weights: str | None = None,
    is_begun: bool = False,
    task: TaskConfig = NO_TASK,
    reads_classes: bool = False,
    needs_relevance: bool = False,
) -> RunData:
    """Check the shards and load the splits; raises UserError for anything a user can put right.

    tokenizer: URI of a tokenizer's folder that takes precedence over the config's (a resumed run's, a pretrained
    model's). weights: of a model that the run starts from, to be hashed. is_begun: of a run that has a checkpoint,
    clips that train shares with val or test are told and no error. task: what is learned; without its contrast clips
    need no caption, and a tokenizer that is trained here knows the words of its questions. reads_classes: whether the
    tables get the clips' classes; needs_relevance: whether a loss compares them.
    """
    # DEFAULT: inside a trial of Ray Tune the task would have to fit what that trial reserves for itself.
    loaded = _load.options(num_returns=5, scheduling_strategy="DEFAULT")
    arguments = (shards, config, seed, tokenizer or config.tokenizer, weights, is_begun, task, reads_classes)
    *stored, summary = loaded.remote(*arguments, needs_relevance)
    return RunData(*stored, result_of(summary, *stored))


@ray.remote(num_cpus=0.5)
def _load(
    shards: str,
    config: DataConfig,
    seed: int,
    tokenizer: str | None,
    weights: str | None = None,
    is_begun: bool = False,
    task: TaskConfig = NO_TASK,
    reads_classes: bool = False,
    needs_relevance: bool = False,
) -> tuple:
    folder = Place.of(shards)
    with storage_errors(shards):
        index = read_index(folder, columns=(*_COLUMNS, "split"))
        check_shards(folder, index)
    tables = {split: _sorted(select_split(index, split)) for split in ("train", "meta", "val", "test")}
    contents = {"shards": hash_clips({split: tables[split] for split in ("train", "meta", "val")})}
    excluded = [] if config.exclude is None else read_exclusions(Place.of(config.exclude))
    contents["data.exclude"] = hash_exclusions(excluded) if excluded else None
    chosen = choose_clips(tables, config, seed, needs_captions=task.contrast, excluded=excluded)
    tables, num_uncaptioned, table_uses, num_excluded = chosen
    require_known(config.exclude, excluded, num_excluded)
    refuse_overlap(tables, is_begun=is_begun)
    if not len(tables["train"]):
        raise _no_training_clips(shards, len(index), num_uncaptioned["train"], config, needs_captions=task.contrast)
    rows_of_shares(tables["train"], config.source_shares)  # what no clip has is told here, not by a worker
    classes: dict = {}
    if reads_classes:
        tables, classes = add_classes(tables, config, needs_relevance=needs_relevance)
        contents["data.classes"] = classes["sha256"]
    reads_questions = tokenizer is None and (config.tokenizer_kind == "bert" or not task.contrast)
    asked = _texts_of_questions(folder, task) if reads_questions else []
    files = _tokenizer_files(tables["train"], config, tokenizer, asked)
    contents["data.tokenizer"] = _hash_files(files)
    contents["model.pretrained"] = None
    if weights is not None:
        contents["model.pretrained"] = _hash_model(weights)
    summary = {
        "num_clips": {split: len(table) for split, table in tables.items()},
        "num_uncaptioned": num_uncaptioned,
        "hash_of_ids": {split: hash_ids(table.column("clip_id").to_pylist()) for split, table in tables.items()},
        "topic_counts": {row["values"]: row["counts"] for row in pc.value_counts(tables["train"]["topic"]).to_pylist()},
        "vocab_size": files.pop("vocab_size"),
        "context_length": files.pop("context_length"),
        "captions": files.pop("captions"),
        "caption_tables": {uri: asdict(use) for uri, use in table_uses.items()},
        "excluded": num_excluded,
        "contents": contents | {"data.caption_tables": [use.sha256 for use in table_uses.values()]},
    } | ({"classes": classes} if classes else {})
    return tables["train"], tables["meta"], tables["val"], files, summary


def _no_training_clips(
    shards: str, num_clips: int, num_uncaptioned: int, config: DataConfig, *, needs_captions: bool
) -> UserError:
    wanted = "clips with split train"
    if needs_captions:
        wanted += " and a caption"
    if config.mix:
        wanted += f" of {sorted(config.mix)}"
    return UserError(
        "no training clips",
        got=f"{num_clips} clips in {shards}, {num_uncaptioned} of split train without a usable caption",
        wanted=wanted,
        remedy="give them captions, or learn answers alone: task.contrast false" if needs_captions else None,
    )


def refuse_overlap(tables: dict[str, pa.Table], *, is_begun: bool = False) -> None:
    """Raise UserError if a clip of train or meta, its video or its very bytes are in val or test as well: what is
    learned from would be measured on. Of a run that has begun, what train shares is told alone."""
    for learned, measured in product(("train", "meta"), ("val", "test")):
        for column in ("clip_id", "video_id", "sha256"):
            ours, theirs = tables[learned].column(column), tables[measured].column(column)
            shared = pc.filter(tables[learned]["clip_id"], pc.is_in(ours, value_set=theirs.combine_chunks()))
            if len(shared):
                error = UserError(
                    f"{'meta-set' if learned == 'meta' else learned} overlaps {measured} by {column}",
                    got=f"{len(shared)} clips, among them {shared[:3].to_pylist()}",
                    wanted=f"{learned} without the {_SHARED[column]} of {measured}",
                    remedy="give these clips, or those of the other split, another split in the annotations, and "
                    "prepare into another folder",
                )
                if not is_begun or learned == "meta":
                    raise error
                logger.warning("%s", error)


def _hash_model(source: str) -> str:
    """Return the SHA-256 of the weights in a model folder, or of a released file."""
    path = Path(source).expanduser()
    with storage_errors(source):
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        with model_folder(source) as directory:
            require_whole_model(directory)
            return hash_weights(directory)


def _hash_files(files: dict) -> str:
    """Return the SHA-256 of a tokenizer's files as they are saved."""
    digest = hashlib.sha256()
    for name in sorted(name for name, content in files.items() if isinstance(content, bytes)):
        digest.update(name.encode() + b"\0" + files[name])
    return digest.hexdigest()


def _sorted(table: pa.Table) -> pa.Table:
    return table.select(_COLUMNS).sort_by([("shard", "ascending"), ("offset", "ascending")]).combine_chunks()


def _texts_of_questions(folder: Place, task: TaskConfig) -> list[str]:
    """Return questions, options and answers of the training clips: a word that stands in none may be in pieces."""
    if task.kind == "question_answering":
        return texts_of_training(read_run_questions(folder.uri, task), _NUM_TOKENIZER_CAPTIONS)
    cells = select_split(read_index(folder, columns=("split", "questions")), "train")["questions"].drop_null()
    records = [record for cell in cells.slice(0, _NUM_TOKENIZER_CAPTIONS).to_pylist() for record in json.loads(cell)]
    values = [record.get(name) for record in records for name in ("question", "answer", "answers", "options")]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    return [text for text in texts if isinstance(text, str)]


def _tokenizer_files(train: pa.Table, config: DataConfig, uri: str | None, asked: list[str]) -> dict:
    with tempfile.TemporaryDirectory(prefix="mama_ray-tokenizer-") as scratch:
        if uri is None:
            captions = train.column("captions").slice(0, _NUM_TOKENIZER_CAPTIONS).to_pylist()
            texts = [caption["text"] for clip in captions for caption in clip]
            kind = WordPieceTokenizer if config.tokenizer_kind == "bert" else Tokenizer
            tokenizer = kind.train([*texts, *asked], vocab_size=config.vocab_size, context_length=config.context_length)
        else:
            with model_folder(uri) as directory:
                require_whole_model(directory)
                tokenizer = Tokenizer.from_directory(directory, config.text_length)
        tokenizer.save(scratch)
        files = {path.name: path.read_bytes() for path in Path(scratch).iterdir()}
    counts = count_train_captions(train, tokenizer, joins_captions=config.caption_mode == "paragraph")
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": tokenizer.context_length}
    return files | sizes | {"captions": asdict(counts)}


def truth_kinds(table: pa.Table) -> np.ndarray | None:
    """Return the recorded kind of each clip's caption (clean, incomplete, wrong, swapped), or None if none is.

    It is that of the clip's human caption, also in the epochs in which one of a caption table is drawn instead.
    """
    truths = table.column("truth")
    if truths.null_count == len(truths):  # as in every corpus that was not made here, however large
        return None
    return np.array([json.loads(truth)["kind"] if truth else "clean" for truth in truths.to_pylist()])
