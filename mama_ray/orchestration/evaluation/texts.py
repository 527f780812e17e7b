"""What the model's context does to the texts of a benchmark: told before they are embedded."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.captions import caption_for_evaluation
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.tokenizer_match import CaptionCounts, count_captions, tell_counts
from mama_ray.models.hub import evaluated_model
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.orchestration.evaluation.embed import EmbedPlan

logger = logging.getLogger(__name__)

_MAX_CLIPS = 50_000  # whose texts are counted, evenly spread


def tell_cut_texts(plan: EmbedPlan, texts: Sequence[str] | None = None) -> None:
    """Warn of texts that the context cuts or that hold unknown pieces, as counted in a task.

    texts: those that are embedded, where they are not the captions of the plan's clips.
    """
    remedy = "that is the benchmark's text_length, or what the model reads"
    for sentence in tell_counts(result_of(_count.remote(plan, texts)), remedy=remedy):
        logger.warning("%s", sentence)


@ray.remote(num_cpus=0.5, name="evaluate: count texts")
def _count(plan: EmbedPlan, texts: Sequence[str] | None) -> CaptionCounts:
    counted = _captions_of(plan) if texts is None else list(texts)
    with evaluated_model(plan.model) as folder:
        return count_captions(Tokenizer.from_directory(folder, plan.text_length), counted)


def _captions_of(plan: EmbedPlan) -> list[str]:
    rows = np.unique(np.linspace(0, plan.num_clips - 1, min(_MAX_CLIPS, plan.num_clips)).astype(np.int64))
    assert plan.caption_mode is not None
    texts: list[str] = []
    for captions in ray.get(plan.table)["captions"].take(pa.array(rows)).to_pylist():
        chosen = caption_for_evaluation(captions, plan.caption_mode)
        texts += [chosen] if isinstance(chosen, str) else chosen
    return texts
