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
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import ray

from mama_ray.data.contents import hash_clips, hash_ids_of
from mama_ray.data.index import select_split
from mama_ray.data.index_file import open_index
from mama_ray.data.index_rows import IndexRows, tables_of
from mama_ray.data.row_facts import TruthKinds, kinds_of
from mama_ray.data.sources import tell_absent
from mama_ray.data.tokenizer import Tokenizer, WordPieceTokenizer
from mama_ray.data.weight_columns import add_columns, columns_of_clips
from mama_ray.errors import UserError
from mama_ray.models.weight_files import hash_weights
from mama_ray.orchestration.cluster import row_server
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.cluster.row_server import ServedRows
from mama_ray.orchestration.training.labels import add_classes
from mama_ray.orchestration.training.large_train import Rows, refuse_overlap, rows_of_splits
from mama_ray.orchestration.training.question_sources import read_run_questions, texts_of_training
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.orchestration.training.split_choice import choose_splits, require_generated, require_shares
from mama_ray.orchestration.training.tokens import count_train_captions
from mama_ray.storage.manifest import require_whole_model
from mama_ray.storage.places import Place, storage_errors
from mama_ray.training.settings import TaskConfig
from mama_ray.weighting.settings import WeightingConfig

logger = logging.getLogger(__name__)

COLUMNS = (
    "clip_id", "video_id", "shard", "offset", "num_bytes", "sha256", "source_sha256", "topic", "captions", "truth",
)  # fmt: skip
NO_TASK = TaskConfig()
_NUM_SERVERS = 4  # of the rows of a large corpus: some 68,000 clips/s by the time of a core
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
    weighting: WeightingConfig | None = None,
    work: str | None = None,
    mixes_captions: bool = False,
) -> RunData:
    """Check the shards and load the splits; raises UserError for anything a user can put right.

    tokenizer: URI of a tokenizer's folder that takes precedence over the config's (a resumed run's, a pretrained
    model's). weights: of a model that the run starts from, to be hashed. is_begun: of a run that has a checkpoint,
    clips that train shares with val or test are told and no error. task: what is learned; without its contrast clips
    need no caption, and a tokenizer that is trained here knows the words of its questions. reads_classes: whether the
    tables get the clips' classes; needs_relevance: whether a loss compares them. weighting: whose weight net may see
    columns, which training's table gets. work: URI of a folder for the training clips of a large corpus as they are
    with the captions of tables, to be deleted when nobody reads the data any more; without it these are in memory.
    mixes_captions: whether a loss reads generated captions beside clips' own, so that there must be some.
    """
    # DEFAULT: inside a trial of Ray Tune the task would have to fit what that trial reserves for itself.
    loaded = _load.options(num_returns=6, scheduling_strategy="DEFAULT")
    arguments = (shards, config, seed, tokenizer or config.tokenizer, weights, is_begun, task, reads_classes)
    *stored, facts, summary = loaded.remote(
        *arguments, needs_relevance, row_server.MAX_HELD_ROWS, weighting, work, mixes_captions
    )
    summary = result_of(summary, *stored, facts)
    if summary.pop("is_served"):
        count = summary["num_clips"]["train"]
        stored[0] = row_server.served_rows(stored[0], count, COLUMNS, num_servers=_NUM_SERVERS, facts=facts)
    return RunData(*stored, summary)


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
    max_held: int = row_server.MAX_HELD_ROWS,
    weighting: WeightingConfig | None = None,
    work: str | None = None,
    mixes_captions: bool = False,
) -> tuple:
    with storage_errors(shards):
        rows = rows_of_splits(Place.of(shards), COLUMNS)
        contents = {"shards": hash_clips({split: rows[split] for split in ("train", "meta", "val")})}
    may_stay = task.contrast and task.kind == "none" and not reads_classes and not _has_columns(weighting)
    held = {"max_held": max_held if may_stay else None, "work": work}
    chosen = choose_splits(shards, rows, config, seed, task, **held, counted=("generated",) if mixes_captions else ())
    tables, num_uncaptioned, facts = chosen.tables, chosen.num_uncaptioned, chosen.facts
    contents["data.exclude"] = chosen.sha256_of_excluded
    refuse_overlap(tables, is_begun=is_begun)
    _require_training_clips(shards, tables, rows, num_uncaptioned, config, needs_captions=task.contrast)
    require_shares(tables["train"], facts, config.source_shares)
    if mixes_captions:
        require_generated(tables["train"], facts)
    if task.contrast:
        with storage_errors(shards):
            tell_absent(tables_of(tables["train"], ["captions"]), config.captions)
    tables, classes = add_classes(tables, config, needs_relevance=needs_relevance) if reads_classes else (tables, {})
    tables, drawn, hashes = _add_weight_columns(tables, weighting)
    contents |= ({"data.classes": classes["sha256"]} if classes else {}) | hashes
    reads_questions = tokenizer is None and (config.tokenizer_kind == "bert" or not task.contrast)
    asked = _texts_of_questions(Place.of(shards), task) if reads_questions else []
    files = _tokenizer_files(tables["train"], config, tokenizer, asked)
    contents["data.tokenizer"] = _hash_files(files)
    contents["model.pretrained"] = None if weights is None else _hash_model(weights)
    summary = {
        **_count_clips(tables, shards),
        "num_uncaptioned": num_uncaptioned,
        "is_served": facts is not None,
        **{name: files.pop(name) for name in ("vocab_size", "context_length", "captions")},
        "caption_tables": {uri: asdict(use) for uri, use in chosen.uses.items()},
        "excluded": chosen.num_excluded,
        "contents": contents | {"data.caption_tables": [use.sha256 for use in chosen.uses.values()]},
    } | ({"classes": classes} if classes else {})
    return tables["train"], tables["meta"], tables["val"], files, facts, summary | drawn


def _has_columns(weighting: WeightingConfig | None) -> bool:
    return weighting is not None and bool(weighting.columns)


def _add_weight_columns(
    tables: dict[str, pa.Table], weighting: WeightingConfig | None
) -> tuple[dict[str, pa.Table], dict[str, list], dict[str, str]]:
    """Return the tables, training's with the columns that a weight net sees, what the summary says of a source that is
    drawn, and a hash of weighting.features, where that is read."""
    if weighting is None or not weighting.columns:
        return tables, {}, {}
    settings = weighting.columns, weighting.categories, weighting.features
    columns, drawn, digest = columns_of_clips(tables["train"], *settings)
    told = {} if drawn is None else {"drawn_source": [drawn.column, list(drawn.values)]}
    hashes = {} if digest is None else {"weighting.features": digest}
    return tables | {"train": add_columns(tables["train"], columns)}, told, hashes


def _count_clips(tables: dict[str, Rows], shards: str) -> dict[str, dict]:
    train = tables["train"]
    with storage_errors(shards):
        if isinstance(train, IndexRows):
            topics = train.count("topic")
        else:
            topics = {row["values"]: row["counts"] for row in pc.value_counts(train["topic"]).to_pylist()}
        return {
            "num_clips": {split: len(table) for split, table in tables.items()},
            "hash_of_ids": {split: hash_ids_of(table) for split, table in tables.items()},
            "topic_counts": topics,
        }


def _require_training_clips(
    shards: str,
    tables: dict[str, Rows],
    rows: dict[str, IndexRows],
    num_uncaptioned: dict[str, int],
    config: DataConfig,
    *,
    needs_captions: bool,
) -> None:
    if len(tables["train"]):
        return
    wanted = "clips with split train"
    if needs_captions:
        wanted += " and a caption"
    if config.mix:
        wanted += f" of {sorted(config.mix)}"
    raise UserError(
        "no training clips",
        got=f"{sum(map(len, rows.values()))} clips in {shards}, {num_uncaptioned['train']} of split train without a "
        "usable caption",
        wanted=wanted,
        remedy="give them captions, or learn answers alone: task.contrast false" if needs_captions else None,
    )


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


def _texts_of_questions(folder: Place, task: TaskConfig) -> list[str]:
    """Return questions, options and answers of the training clips: a word that stands in none may be in pieces."""
    if task.kind == "question_answering":
        return texts_of_training(read_run_questions(folder.uri, task), _NUM_TOKENIZER_CAPTIONS)
    cells: list[str] = []
    with storage_errors(folder.uri):
        for table in open_index(folder).tables(("split", "questions")):
            cells += select_split(table, "train")["questions"].drop_null().to_pylist()
            if len(cells) >= _NUM_TOKENIZER_CAPTIONS:
                break
    records = [record for cell in cells[:_NUM_TOKENIZER_CAPTIONS] for record in json.loads(cell)]
    values = [record.get(name) for record in records for name in ("question", "answer", "answers", "options")]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    return [text for text in texts if isinstance(text, str)]


def _tokenizer_files(train: Rows, config: DataConfig, uri: str | None, asked: list[str]) -> dict:
    with tempfile.TemporaryDirectory(prefix="mama_ray-tokenizer-") as scratch:
        if uri is None:
            texts = _first_texts(train, _NUM_TOKENIZER_CAPTIONS)
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


def _first_texts(train: Rows, num_clips: int) -> list[str]:
    """Return the texts of the first clips."""
    texts: list[str] = []
    for table in tables_of(train, ["captions"]):
        captions = table["captions"].slice(0, num_clips).combine_chunks()
        texts += pc.struct_field(pc.list_flatten(captions), "text").to_pylist()
        num_clips -= len(captions)
        if num_clips <= 0:
            break
    return texts


def truth_kinds(table: pa.Table | ServedRows) -> TruthKinds | None:
    """Return the recorded kind of each clip's caption (clean, incomplete, wrong, swapped, misread), or None if none is.

    It is that of the clip's human caption, also in the epochs in which one of a caption table is drawn instead.
    """
    return table.known().kinds if isinstance(table, ServedRows) else kinds_of(table)
