"""What each Ray Train worker runs: build the state, resume it, stream batches through the loop, record.

Every worker reads the newest whole checkpoint from the run's storage by itself, so a restart after a crash, a resumed
job and a resized group all take the same path.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from mama_ray.data.batch import to_clip_batch
from mama_ray.data.questions.assemble import DecodedClips
from mama_ray.data.weight_columns import DrawnSource
from mama_ray.errors import UserError
from mama_ray.models.asking import question_form_of
from mama_ray.models.dual_encoder import DualEncoder
from mama_ray.models.heads.classes import ClassHeads
from mama_ray.models.hub import prefix_of
from mama_ray.models.pretrained import from_preset, from_pretrained
from mama_ray.models.run_config import frame_transform
from mama_ray.models.timesformer.model import Timesformer
from mama_ray.models.trained_part import choose_trained_part
from mama_ray.models.vgt.feature_table import regions_read
from mama_ray.objectives.classification import ClassificationObjective
from mama_ray.objectives.objective import Objective
from mama_ray.objectives.question_answering import AnsweringObjective
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.runs.batch_stream import decode_cpus, stream_arrays
from mama_ray.orchestration.runs.checkpoint_store import newest_checkpoint, require_same_step
from mama_ray.orchestration.runs.recording import Recording
from mama_ray.orchestration.runs.worker import autocast_for, begin_work
from mama_ray.orchestration.runs.worker_group import resources_of_worker
from mama_ray.orchestration.training.class_validation import ClassValidation
from mama_ray.orchestration.training.clip_reader import (
    Asked,
    ClipReader,
    meta_batches,
    question_meta_batches,
    tokenizer_of,
)
from mama_ray.orchestration.training.data import RunData
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.labels import build_class_head
from mama_ray.orchestration.training.question_validation import QuestionValidation
from mama_ray.orchestration.training.questions import AskedData, build_head_for
from mama_ray.orchestration.training.recorder import RunRecorder
from mama_ray.orchestration.training.sample_record import build_sample_recorder
from mama_ray.orchestration.training.tokens import require_models_sizes
from mama_ray.orchestration.training.validation import ValidationSet
from mama_ray.storage.places import Place, join_uri, storage_errors
from mama_ray.training.checkpoint import load_state, read_train_state
from mama_ray.training.loop import train
from mama_ray.training.state import Head, TrainState, build_state, describe_trained

logger = logging.getLogger(__name__)


def train_fn_per_worker(loop_config: dict) -> None:
    """Train this worker's share of the run; `loop_config` holds the job, the data's references (asked: those of
    its questions, or None), num_steps, num_runs (how many runs share the cluster) and whether to show_bar."""
    job: TrainJob = loop_config["job"]
    data: RunData = loop_config["data"]
    worker = begin_work(Place.of(join_uri(job.storage, job.run)))
    rank, world_size, device = worker.rank, worker.world_size, worker.device
    torch.manual_seed(job.seed)
    with storage_errors(worker.run_folder.uri), newest_checkpoint(worker.run_folder) as directory:
        model = build_model(job, data.summary, directory)
        choose_trained_part(model, freeze=job.model.freeze, lora=job.model.lora, seed=job.seed)
        model = model.to(device)
        if job.model.pretrained is not None and directory is None:
            require_models_sizes(job, model.config, data.summary)
        asked: AskedData | None = loop_config["asked"]
        tokenizer = tokenizer_of(data.tokenizer_files)
        head = None if asked is None else build_head_for(job.task, asked, model, tokenizer)
        if job.classifies:
            head = build_class_head(job.task.class_head, data.summary["classes"]["sizes"], model)
        state = _build_state(job, model, device, loop_config["num_steps"], head, _count_samples(data, asked))
        if rank == 0:
            logger.info("%s", describe_trained(state))
        _resume(state, directory)
    reader = _build_reader(job, data, model, asked)
    validation, answers = None, None
    place = {"rank": rank, "world_size": world_size}
    if job.learns_contrast:
        validation = ValidationSet(reader.clips(data.val), ray.get(data.val)["clip_id"].to_pylist(), **place)
    if job.classifies:
        answers = ClassValidation(reader, data.val, measured=job.task.class_head.measured, **place)
    if asked is not None:
        answers = QuestionValidation(reader, data.val, asked.val, answers=asked.answers, **place)
    num_clips, show_bar = reader.epoch_plan().num_clips, loop_config["show_bar"]
    recording = Recording(job, state, worker, num_clips=num_clips, show_bar=show_bar)
    samples = build_sample_recorder(job, worker, data, reader, asked, first_step=state.step)
    recorder = RunRecorder(recording, job, state, data, validation, reader, asked, answers, samples=samples)
    arrays = stream_arrays(
        reader,
        first_step=state.step,
        num_steps=state.num_steps,
        global_batch_size=job.global_batch_size,
        **place,
        num_decode_cpus=_share_of_cpus(job, world_size, loop_config["num_runs"]),
        num_parts=job.num_micro_batches,
        decode_labels=job.placement.decode_labels,
    )
    on_device = (batch.to(device) for batch in recording.timed(map(to_clip_batch, arrays)))
    metas = (batch.to(device) for batch in _meta_stream(job, data, asked, reader, state, rank, world_size))
    with recording:
        train(state, on_device, metas, report=recorder, measure_every=job.log_every)


def _share_of_cpus(job: TrainJob, world_size: int, num_runs: int) -> float:
    return decode_cpus(
        job.cpus_per_worker,
        world_size,
        num_runs=num_runs,
        worker_labels=job.placement.worker_labels,
        worker_resources=resources_of_worker(job, job.placement),
        decode_labels=job.placement.decode_labels,
    )


def build_model(job: TrainJob, summary: dict, checkpoint: Path | None = None) -> DualEncoder:
    """Make the run's model: pretrained, or from a preset with the vocabulary of the run's tokenizer.

    A run that has a checkpoint takes the model's config from there: it goes on as it began, whatever a preset says now,
    and the weights it began with need no longer be where they were.
    """
    checkpointing = {"gradient_checkpointing": job.model.gradient_checkpointing}
    own: dict[str, Any] = dict(checkpointing)
    if job.model.drop_path is not None:
        own["drop_path"] = job.model.drop_path
    source = job.model.pretrained
    if checkpoint is not None:
        model = from_pretrained(checkpoint, **checkpointing)
        model.new_weights = tuple(read_train_state(checkpoint).get("new_weights", ()))  # as the run began
        return model
    if source is None:
        sizes = {name: summary[name] for name in ("vocab_size", "context_length")}
        return from_preset(job.model.preset, sizes | own | {"num_frames": job.data.num_frames})
    if "://" not in source:  # a local folder or a hub id
        model = from_pretrained(source, **own)
    else:
        with storage_errors(source), model_folder(source) as directory:
            model = from_pretrained(f"{prefix_of(source)}{directory}", **own)
    if isinstance(model, Timesformer):  # as LaViLa, once: interpolated in each step, 16 frames would learn 4 rows
        model.lengthen_(job.data.num_frames)
    return model


def _build_state(
    job: TrainJob,
    model: DualEncoder,
    device: torch.device,
    num_steps: int,
    head: Head | None = None,
    num_samples: int | None = None,
) -> TrainState:
    task: Objective | None = AnsweringObjective(job.task.label_smoothing) if job.answers_questions else None
    if isinstance(head, ClassHeads):
        task = ClassificationObjective(tuple(head.sizes.items()), job.task.label_smoothing)
    return build_state(
        model,
        task=task,
        eta=job.task.eta,
        head=head,
        head_lr_scale=job.task.head_lr_scale,
        objective=job.objective if job.learns_contrast else None,
        weighting=job.weighting,
        meta=job.meta,
        optim=job.optim,
        num_steps=num_steps,
        global_batch_size=job.global_batch_size,
        num_micro_batches=job.num_micro_batches,
        autocast=autocast_for(job.precision, device),
        seed=job.seed,
        num_samples=num_samples,
    )


def _count_samples(data: RunData, asked: AskedData | None) -> int:
    """Return how many rows batches have theirs of: the training clips, or the questions about them."""
    return len(ray.get(data.train if asked is None else asked.train))


def _resume(state: TrainState, checkpoint: Path | None) -> None:
    if checkpoint is not None:
        load_state(state, checkpoint)
        logger.info("resumed at step %d of %d from %s", state.step, state.num_steps, checkpoint.name)
    require_same_step(state.step, next(state.model.parameters()).device)


def _build_reader(job: TrainJob, data: RunData, model: DualEncoder, asked: AskedData | None = None) -> ClipReader:
    assert job.shards is not None  # the driver has put in where the embedded ones are
    pairs = None
    if asked is not None:
        plan = job.task.plan.model_copy(update={"seed": job.seed})
        has_own_head, form = job.task.head.kind == "own", question_form_of(model.config)
        pairs = Asked(asked.train, model.model_type, has_own_head, job.global_batch_size, plan, form)
    return ClipReader(
        features=job.data.features,
        num_regions=regions_read(job.data.features, model.config, option="data.features"),
        table=data.train,
        shards=job.shards,
        tokenizer_files=data.tokenizer_files,
        num_frames=job.data.num_frames,
        transform=frame_transform(model.config, job.data.resize),
        decode=job.data.decode,
        caption_probabilities=job.data.captions if job.learns_contrast else None,  # no text is asked for then
        joins_captions=job.data.caption_mode == "paragraph",
        generated_apart=job.objective.mixes_captions,
        seed=job.seed,
        plan=job.data.plan.model_copy(update={"seed": job.seed}),
        asked=pairs,
        classes=tuple(data.summary.get("classes", {"sizes": {}})["sizes"].items()),
        relevant_above=job.data.positive_relevance,
        flip=job.data.flip,
        shares=tuple(sorted(job.data.source_shares.items())),
        drawn_source=DrawnSource.of(data.summary.get("drawn_source")),
    )


def _meta_stream(
    job: TrainJob,
    data: RunData,
    asked: AskedData | None,
    reader: ClipReader,
    state: TrainState,
    rank: int,
    world_size: int,
):
    if not job.is_meta_learned:
        return iter(())
    table = ray.get(data.meta)
    rows = np.arange(len(table))
    if asked is not None:
        rows = np.unique(ray.get(asked.meta)["row"].to_numpy())
    meta_set = reader.meta_clips(data.meta).assemble(rows)
    if not meta_set["valid"].all():
        bad = [table["clip_id"][int(row)].as_py() for row in rows[~meta_set["valid"]][:3]]
        raise UserError(
            "unreadable clips in the meta-set", got=bad, remedy="run jobs/prepare.py again; see its quarantine"
        )
    first = -(-state.step // job.meta.meta_every)  # meta steps already taken
    place = {
        "first_meta_step": first,
        "batch_size": job.meta.batch_size,
        "rank": rank,
        "world_size": world_size,
        "seed": job.seed,
    }
    if asked is None:
        return meta_batches(meta_set, **place)
    pairs = reader.pairs(data.meta, asked.meta)
    return question_meta_batches(replace(pairs, clips=DecodedClips(meta_set)), **place)
