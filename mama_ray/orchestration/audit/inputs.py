"""What an audit reads of a run: its settings, its clips with their captions as training saw them, its record."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from mama_ray.auditing.record import read_record
from mama_ray.auditing.sums import Drawn, RecordMeans, average_record
from mama_ray.captioning.join import COLUMNS, join_captions
from mama_ray.captioning.quality import FLAGS
from mama_ray.captioning.table import read_caption_files
from mama_ray.config import load_yaml, with_overrides
from mama_ray.config.schema import build_config
from mama_ray.data.assemble import text_of
from mama_ray.data.video.sampling import row_rng
from mama_ray.errors import UserError
from mama_ray.orchestration.audit.job import AuditJob
from mama_ray.orchestration.cluster.row_server import ServedRows
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.runs.run_folder import compare_with_begun
from mama_ray.orchestration.training.job import TrainJob, with_absolute_paths
from mama_ray.orchestration.training.run import load_begun_data
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_SETTINGS_BYTES
from mama_ray.training.manifest import CheckpointRef, latest_valid_checkpoint


@dataclass(frozen=True)
class AuditedRun:
    """A run that has a checkpoint: its settings, its training clips in the object store, and where it stands."""

    training: TrainJob
    shards: str
    clips: ray.ObjectRef
    step: int


def read_training(job: AuditJob) -> tuple[TrainJob, CheckpointRef]:
    """Return the settings and the newest checkpoint of the run; UserError where it is none, or learned no captions."""
    folder = Place.of(job.run)
    place = folder / "config.yaml"
    if not place.is_file():
        raise UserError(
            "not the folder of a run", got=f"{folder}, without config.yaml", wanted="a run of jobs/train.py"
        )
    training = build_config(TrainJob, load_yaml(place.read_text(MAX_SETTINGS_BYTES), source=place.uri))
    where = {"storage": folder.parent.uri, "run": folder.name}
    training = with_absolute_paths(with_overrides(training, where | ({"shards": job.shards} if job.shards else {})))
    newest = latest_valid_checkpoint(folder)
    if newest is None:
        raise UserError("the run has no checkpoint yet", got=folder)
    if not training.learns_contrast or training.answers_questions:
        wanted = "one with the contrast, without questions"
        raise UserError("the run does not learn from captions", got=folder, wanted=wanted)
    return training, newest


def load_run(training: TrainJob, newest: CheckpointRef) -> AuditedRun:
    """Load the clips that the run learned from, as they were when it began; UserError where they are others."""
    begun = compare_with_begun(training, Place.of(training.storage) / training.run)
    shards = training.shards or embedded_shards(training.corpus, training.storage)
    training = training.model_copy(update={"shards": shards})
    return AuditedRun(training, shards, load_begun_data(training, begun, newest).train, newest.step)


@ray.remote(num_cpus=0.5, name="audit: read record")
def read_means(run: AuditedRun, tables: Sequence[str]) -> tuple[pa.Table, RecordMeans]:
    """Return the clips with the captions of further tables behind their own, and the means of the run's record."""
    learned = ray.get(run.clips)
    learned = learned.read() if isinstance(learned, ServedRows) else learned
    clips = learned
    if tables:
        files = {uri: read_caption_files(Place.of(uri), columns=COLUMNS) for uri in tables}
        clips, _ = join_captions(clips, files, exclude_flags=FLAGS)
    folder = Place.of(run.training.storage) / run.training.run
    drawn = which_caption(learned["captions"].combine_chunks(), run.training)
    return clips, average_record(read_record(folder, run.step), clips["clip_id"], offsets_of(clips), drawn)


def offsets_of(clips: pa.Table) -> np.ndarray:
    """Return where each clip's captions begin among those of all, and where the last one's end."""
    offsets = clips["captions"].combine_chunks().offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0]


def which_caption(captions: pa.ListArray | pa.LargeListArray, training: TrainJob) -> Drawn:
    """Return what tells which caption of its clip a sample read: drawn again, as the batch's assembler drew it.

    The first one where texts of other clips, or all of a clip's at once, were read; a clip's own where a generated one
    was read beside it.
    """
    data = training.data
    sources = sorted(source for source, share in data.source_shares.items() if share > 0)
    counts = pc.list_value_length(captions).to_numpy(zero_copy_only=False)

    def drawn(rows: np.ndarray, samples: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        places = np.zeros(len(rows), np.int64)
        if data.caption_mode == "paragraph" or data.positive_relevance is not None:
            return places
        for number in np.flatnonzero(counts[rows] > 1).tolist():
            row, own = int(rows[number]), captions[int(rows[number])].as_py()
            mix = {sources[int(samples[number]) // len(captions)]: 1.0} if sources else data.captions
            rng = row_rng(training.seed, int(epochs[number]), row)
            text = text_of(own, rng, joins=False, probabilities=mix, apart=training.objective.mixes_captions)
            places[number] = next(place for place, one in enumerate(own) if one["text"] == text)
        return places

    return drawn
