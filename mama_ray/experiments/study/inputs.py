"""What the runs of a study read: decoded pictures of each corpus, the pretrained model, generated captions."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from mama_ray.captioning.table import read_caption_files
from mama_ray.config import with_overrides
from mama_ray.data.synthetic.config import CorpusConfig, corpus_hash
from mama_ray.experiments.study.cell import CellConfig, cell_hash, pictures_of
from mama_ray.experiments.study.clip_arrays import FRAMES_NAME, write_frames
from mama_ray.experiments.study.job import PretrainingConfig, StudyJob
from mama_ray.experiments.study.pretrain import describe_start, num_frames_of, pretrain
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.prepare.corpus import build_corpus
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run as prepare
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)


class StudyInputs:
    """Makes what is missing, finds what is there; everything is named by what it is made from."""

    def __init__(self, job: StudyJob, storage: Path):
        self._job, self._storage = job, storage
        self._start = describe_start(job.pretraining)
        self._num_frames = num_frames_of(job.pretraining)
        self._pretrained = storage / f"pretrained-{_short_hash(self._start)}"
        self._captions: dict[tuple[str, int, bool], dict[str, str]] = {}

    def describe(self, cell: CellConfig) -> dict[str, Any]:
        """Return what a cell's result depends on beside the cell."""
        captions = self._job.captioning[cell.captions].model_dump(mode="json") if cell.captions else None
        return {"pretraining": self._start, "captions": captions, "corpus": corpus_hash(cell.seeded_corpus)}

    def prepare(self, cells: Sequence[CellConfig]) -> None:
        """Make what these cells read and is not there yet."""
        self._make_frames([cell.seeded_corpus for cell in cells])
        if not self.is_pretrained:
            source = self._job.pretraining
            self._make_frames([source.corpus])
            logger.info("pretraining: %d steps", source.num_steps)
            result_of(_pretrain.remote(source, self.folder_of(source.corpus) / FRAMES_NAME, self._pretrained))
        for cell in cells:
            if cell.captions and not (self._table(cell) / "captions.json").exists():
                self._make_captions(cell)

    def of(self, cell: CellConfig) -> tuple[Path, Path, dict[str, str]]:
        """Return the arguments of run_cell: frames, pretrained model, generated captions by clip id."""
        return self.folder_of(cell.seeded_corpus) / FRAMES_NAME, self._pretrained, self._read_captions(cell)

    def name_of(self, cell: CellConfig) -> str:
        """Return the name of a cell's result."""
        return cell_hash(cell, self.describe(cell))

    @property
    def is_pretrained(self) -> bool:
        """Whether the model that cells start from is there."""
        return (self._pretrained / "config.json").exists()

    def folder_of(self, corpus: CorpusConfig) -> Path:
        """Return the folder of a corpus's pictures."""
        return self._storage / f"corpus-{corpus_hash(pictures_of(corpus))[:16]}"

    def _make_frames(self, corpora: Sequence[CorpusConfig]) -> None:
        missing = {self.folder_of(corpus): pictures_of(corpus) for corpus in corpora}
        missing = {folder: corpus for folder, corpus in missing.items() if not (folder / FRAMES_NAME).exists()}
        tasks = []
        for folder, corpus in missing.items():
            build_corpus(corpus, str(folder))
            tasks.append(_write_frames.remote(corpus, folder, self._num_frames))
        for task in tasks:
            result_of(task)

    def _table(self, cell: CellConfig) -> Path:
        return self.folder_of(cell.seeded_corpus) / f"captions-{_short_hash(self.describe(cell)['captions'])}"

    def _make_captions(self, cell: CellConfig) -> None:
        folder = self.folder_of(cell.seeded_corpus)
        shards = str(folder / "shards")
        videos, annotations = str(folder / "videos"), str(folder / "annotations.jsonl")
        prepare(PrepareJob(videos=videos, annotations=annotations, output=shards))
        place = {"shards": shards, "output": str(self._table(cell)), "split": "train"}
        logger.info("%s", caption(with_overrides(self._job.captioning[cell.captions], place)))

    def _read_captions(self, cell: CellConfig) -> dict[str, str]:
        if not cell.captions:
            return {}
        key = (cell.captions, cell.seed, cell.caption_gate)
        if key not in self._captions:
            columns = ["clip_id", "caption", "flags"]
            found = {}
            for table in read_caption_files(Place.of(self._table(cell)), columns):
                for row in table.to_pylist():
                    if row["caption"] and not (cell.caption_gate and row["flags"]):
                        found[row["clip_id"]] = row["caption"]
            self._captions[key] = found
        return self._captions[key]


def _short_hash(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]


@ray.remote(num_cpus=1, name="study: decode corpus")
def _write_frames(corpus: CorpusConfig, folder: Path, num_frames: int) -> None:
    write_frames(corpus, folder, num_frames=num_frames)


@ray.remote(num_cpus=1, name="study: pretrain")
def _pretrain(config: PretrainingConfig, frames_path: Path, folder: Path) -> None:
    pretrain(config, frames_path, folder)
