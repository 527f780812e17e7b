"""What each Ray Train worker of a narrator's run does: load or build the model, resume, learn from the stream, record.

Every worker reads the newest whole checkpoint from the run's storage by itself, so a restart after a crash, a resumed
job and a resized group all take the same path.
"""

import logging
from typing import Any

import numpy as np
import ray
import torch
from torch.nn.parallel import DistributedDataParallel

from mama_ray.captioning.narrator.folder import Narrator, load_narrator, load_processor
from mama_ray.captioning.narrator.loss import IGNORED, CaptionLoss, choose_trained_parts
from mama_ray.captioning.narrator.preset import build_tiny_model
from mama_ray.errors import UserError
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.narrator.data import NarratorData, PictureReader, unpacked
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.narrator.recorder import NarratorRecorder
from mama_ray.orchestration.narrator.state import NarratorState, load_state, train_step
from mama_ray.orchestration.narrator.validation import NarratorValidation
from mama_ray.orchestration.runs.batch_stream import decode_cpus, stream_arrays
from mama_ray.orchestration.runs.checkpoint_store import newest_checkpoint, require_same_step
from mama_ray.orchestration.runs.recording import Recording
from mama_ray.orchestration.runs.worker import autocast_for, begin_work, uses_bfloat16
from mama_ray.storage.places import Place, join_uri, storage_errors
from mama_ray.training.optim import build_optimizer

logger = logging.getLogger(__name__)


def train_narrator_per_worker(loop_config: dict) -> None:
    """Train this worker's share of the run; `loop_config` holds the job, the data's references, num_steps and
    whether to show_bar."""
    _quieten_transformers()
    job: NarratorJob = loop_config["job"]
    data: NarratorData = loop_config["data"]
    assert job.shards is not None  # the driver has put in where the embedded ones are
    worker = begin_work(Place.of(join_uri(job.storage, job.run)))
    rank, world_size, device = worker.rank, worker.world_size, worker.device
    with storage_errors(worker.run_folder.uri), newest_checkpoint(worker.run_folder) as directory:
        narrator = load_narrator(directory) if directory is not None else _first_narrator(job, data)
        state = _build_state(job, data, narrator, device, loop_config["num_steps"])
        if directory is not None:
            load_state(state, directory)
            logger.info("resumed at step %d of %d from %s", state.step, state.num_steps, directory.name)
    require_same_step(state.step, device)
    reader = PictureReader(data, job.shards, job.grid, job.data, job.seed)
    part_size = job.global_batch_size // world_size // job.num_micro_batches
    validation = NarratorValidation(
        reader, num_clips=job.num_val_clips, chunk_size=part_size, rank=rank, world_size=world_size
    )
    num_clips = data.summary["num_clips"]["train"]
    recording = Recording(job, state, worker, num_clips=num_clips, show_bar=loop_config["show_bar"])
    recorder = NarratorRecorder(recording, job, state, validation)
    batches = stream_arrays(
        reader,
        first_step=state.step,
        num_steps=state.num_steps,
        global_batch_size=job.global_batch_size,
        rank=rank,
        world_size=world_size,
        num_decode_cpus=decode_cpus(job.cpus_per_worker, world_size),
    )
    with recording:
        for arrays in recording.timed(batches):
            # Those from shared memory are read-only and must be copied before torch may own them.
            pictures, labels, valid = (
                torch.from_numpy(np.array(arrays[name])).to(device) for name in ("pictures", "labels", "valid")
            )
            recorder(train_step(state, pictures, labels.masked_fill(~valid[:, None], IGNORED)), valid)


def _first_narrator(job: NarratorJob, data: NarratorData) -> Narrator:
    """Load the pretrained model, or make an untrained one from the job's seed."""
    if job.model.pretrained is not None:
        with model_folder(job.model.pretrained) as directory:
            return load_narrator(directory)
    with unpacked(ray.get(data.processor_files)) as directory:
        processor = load_processor(directory)
    torch.manual_seed(job.seed)
    return Narrator(build_tiny_model(processor), processor)


def _build_state(
    job: NarratorJob, data: NarratorData, narrator: Narrator, device: torch.device, num_steps: int
) -> NarratorState:
    """Bind a narrator to its optimiser; wraps its loss in DDP inside a process group."""
    model = narrator.model.train()
    choose_trained_parts(model, job.model.trains)
    if uses_bfloat16(job.precision, device):
        for parameter in model.parameters():
            if not parameter.requires_grad:  # what does not train needs no more digits than it is used with
                parameter.data = parameter.data.bfloat16()
    if job.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    text_config: Any = narrator.model.config.text_config  # transformers says only that it may be a dict
    longest = text_config.max_position_embeddings
    loss = CaptionLoss(model, narrator.processor, data.prompt).to(device)
    wanted = len(loss.prompt_ids) + job.data.max_caption_tokens
    if wanted > longest:
        raise UserError(
            "prompt and caption are longer than the model's context",
            got=f"{len(loss.prompt_ids)} + {job.data.max_caption_tokens} tokens",
            wanted=f"at most {longest}",
            remedy="lower data.max_caption_tokens",
        )
    optimizer = build_optimizer(model, job.optim)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        loss = DistributedDataParallel(loss, gradient_as_bucket_view=True)
    return NarratorState(
        narrator,
        loss,
        optimizer,
        job.optim,
        num_steps,
        job.global_batch_size,
        job.num_micro_batches,
        autocast_for(job.precision, device),
    )


def _quieten_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
