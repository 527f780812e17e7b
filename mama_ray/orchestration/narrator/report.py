"""The report page of a narrator's run, written by a task: it loads the model to caption some clips of val."""

import json
from collections.abc import Sequence
from typing import cast

import numpy as np
import ray
import torch

from mama_ray.captioning.narrator.kind import NarratorLoss
from mama_ray.captioning.narrator.kinds import KINDS
from mama_ray.evaluation.caption_metrics.scores import CaptionScores
from mama_ray.orchestration.cluster.connect import start_worker_logging
from mama_ray.orchestration.narrator.captioned import RESULT_NAME, as_record, scores_from_record
from mama_ray.orchestration.narrator.data import NarratorData, SampleReader
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.runs.worker import uses_bfloat16
from mama_ray.reporting.narrator_page import NarratedClip, NarratorReport, write_narrator_report
from mama_ray.reporting.provenance import read_provenance, read_settings
from mama_ray.reporting.run_summary import training_time_s
from mama_ray.reporting.writers import read_metrics
from mama_ray.storage.places import Place, join_uri

_NUM_SAMPLES = 12
_BATCH_SIZE = 4  # a narrator of 7 B parameters writes so many beside its weights on one GPU


def write_run_report(job: NarratorJob, data: NarratorData, checkpoint: str) -> str:
    """Write `<run>/report/index.html` with captions of a checkpoint, and beside it `captions.json` with the
    scores of the checkpoint's captions and what they are of; returns the page's URI."""
    task = _write.options(num_gpus=1 if job.use_gpu else 0, num_cpus=job.cpus_per_worker)
    return ray.get(task.remote(job, data, checkpoint))


@ray.remote
def _write(job: NarratorJob, data: NarratorData, checkpoint: str) -> str:
    start_worker_logging()
    run_uri = join_uri(job.storage, job.run)
    run_folder = Place.of(run_uri)
    records = read_metrics(run_folder)
    num_val = data.summary["num_clips"]["val"]
    scores = _write_scores(run_folder, checkpoint)
    report = NarratorReport(
        title=f"Narrator {job.run}",
        records=records,
        samples=tuple(_narrate(job, data, checkpoint, num_val)),
        prompt=data.facts.prompt,
        scores=scores,
        duration_s=training_time_s(records),
        num_val=num_val,
        provenance=read_provenance(run_folder, records, checkpoint),
        settings=read_settings(run_folder),
    )
    return write_narrator_report(Place.of(join_uri(run_uri, "report")), report)


def _write_scores(run_folder: Place, checkpoint: str) -> CaptionScores | None:
    record = (Place.of(checkpoint) / "train_state.json").read_json() or {}
    scores = scores_from_record(record.get("captions"))
    if scores is not None:
        result = as_record(scores) | {"checkpoint": checkpoint, "step": record["step"], "decoding": "greedy"}
        (run_folder / f"report/{RESULT_NAME}").write_whole(json.dumps(result, indent=1))
    return scores


def _narrate(job: NarratorJob, data: NarratorData, checkpoint: str, num_val: int) -> list[NarratedClip]:
    """Caption clips that are spread evenly over val; those that cannot be decoded are left out."""
    if not num_val:
        return []
    reader = SampleReader.of(job, data)
    table = ray.get(data.val)
    rows = np.linspace(0, num_val - 1, min(_NUM_SAMPLES, num_val)).round().astype(np.int64)
    arrays = reader.assembler(data.val).assemble(rows)
    usable = np.flatnonzero(arrays["valid"])
    pictures = arrays["pictures"][usable]
    texts = _captions(job, data, checkpoint, pictures)
    clips = [table.slice(int(row), 1).to_pylist()[0] for row in rows[usable]]
    return [
        NarratedClip(clip["clip_id"], picture, text, clip["captions"][0]["text"])
        for clip, picture, text in zip(clips, pictures, texts, strict=True)
    ]


@torch.no_grad()
def _captions(job: NarratorJob, data: NarratorData, checkpoint: str, pictures: np.ndarray) -> Sequence[str]:
    device = torch.device("cuda" if job.use_gpu and torch.cuda.is_available() else "cpu")
    with Place.of(checkpoint).local() as directory:
        narrator = KINDS[data.facts.kind].load(directory)
    max_tokens = job.data.max_caption_tokens
    loss = narrator.build_loss(data.facts, job.model, max_caption_tokens=max_tokens).eval().to(device)
    if uses_bfloat16(job.precision, device):
        narrator.model.bfloat16()
    narrate = cast(NarratorLoss, loss).narrate
    texts: list[str] = []
    for start in range(0, len(pictures), _BATCH_SIZE):
        shown = torch.from_numpy(np.ascontiguousarray(pictures[start : start + _BATCH_SIZE])).to(device)
        texts += narrate(shown, max_tokens=max_tokens)
    return [" ".join(text.split()) for text in texts]
