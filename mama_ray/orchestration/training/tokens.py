"""The tokenizer of a run: is it the model's, and what does it do to the captions."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.captions import caption_for_evaluation
from mama_ray.data.index_rows import tables_of
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.tokenizer_match import (
    CaptionCounts,
    TextLayout,
    count_captions,
    refuse_other_tokenizer,
    tell_counts,
    tokenizer_beside,
)
from mama_ray.errors import UserError
from mama_ray.models.dual_encoder import DualEncoderConfig
from mama_ray.models.hf_encoder.model import HfEncoderConfig
from mama_ray.models.hub import prefix_of
from mama_ray.models.pretrained import describe_model
from mama_ray.orchestration.cluster.model_source import model_folder
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.large_train import Rows

logger = logging.getLogger(__name__)

_MAX_CLIPS = 50_000  # whose captions are counted, evenly spread: a share to a tenth of a percent
_RELEASED_FILES = (".pt", ".pth", ".bin", ".safetensors")


def require_models_tokenizer(job: TrainJob, tokenizer_files: ray.ObjectRef) -> None:
    """Raise UserError where the pretrained weights of a job were trained with another tokenizer than the job's."""
    source = job.model.pretrained
    if source is None or source.endswith(_RELEASED_FILES):  # sizes of a file are known when it is read, in the worker
        return
    result_of(_compare.options(scheduling_strategy="DEFAULT").remote(source, tokenizer_files, name_of_tokenizer(job)))


def name_of_tokenizer(job: TrainJob) -> str:
    """Return where a job's tokenizer comes from, in words."""
    return job.data.tokenizer or job.model.pretrained or "the one that was trained here"


def require_models_sizes(job: TrainJob, config: DualEncoderConfig, summary: dict) -> None:
    """Raise UserError where a model that was read has other sizes than the run's tokenizer, as a released file may."""
    for size in ("vocab_size", "context_length"):
        # Tables of transformers' models may have rows that are no token's.
        spare = getattr(config, size) - summary[size] if isinstance(config, HfEncoderConfig) else 0
        if getattr(config, size) != summary[size] and not (size == "vocab_size" and spare > 0):
            raise UserError(
                f"the tokenizer is not that of the pretrained weights: {size} differs",
                got=f"{name_of_tokenizer(job)}: {summary[size]}",
                wanted=f"{job.model.pretrained}: {getattr(config, size)}",
                remedy="set data.tokenizer to the folder of the tokenizer that these weights were trained with"
                + (f", or data.text_length to {getattr(config, size)}" if size == "context_length" else ""),
            )


def count_train_captions(train: Rows, tokenizer: Tokenizer, *, joins_captions: bool) -> CaptionCounts:
    """Count what a tokenizer does to the captions of (evenly spread) training clips."""
    rows = np.unique(np.linspace(0, len(train) - 1, min(_MAX_CLIPS, len(train))).astype(np.int64))
    texts: list[str] = []
    start = 0
    for table in tables_of(train, ["captions"]):
        own = rows[(rows >= start) & (rows < start + len(table))] - start
        start += len(table)
        for captions in filter(None, table["captions"].take(pa.array(own)).to_pylist()):
            if joins_captions:
                texts.append(str(caption_for_evaluation(captions, "paragraph")))
            else:
                texts += [caption["text"] for caption in captions]
    return count_captions(tokenizer, texts)


def tell_captions(job: TrainJob, summary: dict) -> None:
    """Warn of captions that are cut or hold unknown pieces, as counted in the summary of the run's data."""
    is_trained_here = job.data.tokenizer is None and job.model.pretrained is None
    remedy = "raise data.context_length" if is_trained_here else "shorten them, or take a model with a longer context"
    for sentence in tell_counts(CaptionCounts(**summary["captions"]), remedy=remedy):
        logger.warning("%s", sentence)


@ray.remote(num_cpus=0.5, name="train: compare tokenizers")
def _compare(source: str, files: dict[str, bytes], name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mama_ray-tokenizer-") as scratch:
        for file, content in files.items():
            (Path(scratch) / file).write_bytes(content)
        tokenizer = Tokenizer.from_directory(scratch)
    with model_folder(source) as directory:
        config = describe_model(Path(directory), prefix=prefix_of(source))
        layout = TextLayout(config.vocab_size, config.context_length, tokenizer_beside(Path(directory)))
    refuse_other_tokenizer(tokenizer, layout, name=name, model=source)
