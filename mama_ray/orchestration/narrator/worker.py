"""What each Ray Train worker of a narrator's run does: load or build the model, resume, learn from the stream, record.

Every worker reads the newest whole checkpoint from the run's storage by itself, so a restart after a crash, a resumed
job and a resized group all take the same path.
"""

import logging

import numpy as np
import ray
import torch
from torch.nn.parallel import DistributedDataParallel

from mama_ray.captioning.narrator.kind import IGNORED, TaughtNarrator
from mama_ray.captioning.narrator.kinds import KINDS
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.narrator.data import NarratorData, SampleReader
from mama_ray.orchestration.narrator.job import NarratorJob
from mama_ray.orchestration.narrator.recorder import NarratorRecorder
from mama_ray.orchestration.narrator.sources import settings_at_hand
from mama_ray.orchestration.narrator.state import NarratorState, StepDraws, load_state, train_step
from mama_ray.orchestration.narrator.validation import NarratorValidation
from mama_ray.orchestration.runs.batch_stream import decode_cpus, stream_arrays
from mama_ray.orchestration.runs.checkpoint_store import newest_checkpoint, require_same_step
from mama_ray.orchestration.runs.recording import Recording
from mama_ray.orchestration.runs.worker import Worker, autocast_for, begin_work, uses_bfloat16
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
        narrator = KINDS[data.facts.kind].load(directory) if directory is not None else _first_narrator(job, data)
        state = _build_state(job, data, narrator, worker, loop_config["num_steps"])
        if directory is not None:
            load_state(state, directory)
            logger.info("resumed at step %d of %d from %s", state.step, state.num_steps, directory.name)
    require_same_step(state.step, device)
    reader = SampleReader.of(job, data)
    part_size = job.global_batch_size // world_size // job.num_micro_batches
    validation = NarratorValidation(job, reader, chunk_size=part_size, rank=rank, world_size=world_size)
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


def _first_narrator(job: NarratorJob, data: NarratorData) -> TaughtNarrator:
    """Load the pretrained model, or make one of a preset, its parts and the job's seed."""
    kind = KINDS[data.facts.kind]
    if job.model.pretrained is not None:
        with model_folder(job.model.pretrained) as directory:
            return kind.load(directory)
    torch.manual_seed(job.seed)
    with settings_at_hand(job) as settings:
        return kind.start(data.facts, ray.get(data.files), settings)


def _build_state(
    job: NarratorJob, data: NarratorData, narrator: TaughtNarrator, worker: Worker, num_steps: int
) -> NarratorState:
    """Bind a narrator to its optimiser; wraps its loss in DDP inside a process group."""
    model = narrator.model.train()
    narrator.choose_trained_parts(job.model)
    if uses_bfloat16(job.precision, worker.device):
        narrator.shrink_frozen_parts()
    if job.model.gradient_checkpointing:
        narrator.recompute_activations()
    loss = narrator.build_loss(data.facts, job.model, max_caption_tokens=job.data.max_caption_tokens)
    loss = loss.to(worker.device)
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
        autocast_for(job.precision, worker.device),
        draws=StepDraws(job.seed, worker.rank),
    )


def _quieten_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
