"""A look at what a training job reads, before Ray starts: what is surely wrong is told within a second."""

from collections.abc import Mapping
from pathlib import Path

from mama_ray.captioning.table import read_summary
from mama_ray.data.index_look import look_at_index
from mama_ray.data.tokenizer_match import TOKENIZER_FILES
from mama_ray.errors import UserError
from mama_ray.models.dual_encoder import DualEncoderConfig
from mama_ray.models.hub import prefix_of, without_prefix
from mama_ray.models.pretrained import outline_model, outline_preset, preset
from mama_ray.models.trained_part import plan_trained_part
from mama_ray.models.vgt.feature_table import regions_read
from mama_ray.orchestration.cluster.model_source import look_at_model
from mama_ray.orchestration.runs.settings import require_one_batch
from mama_ray.orchestration.training.job import TrainJob, inputs_of
from mama_ray.reporting.trackers import require_trackers
from mama_ray.storage.first_look import ensure_readable
from mama_ray.storage.places import Place

_LONGEST_ADAM_STEP = 10.0  # times optim.lr


def look_at_inputs(job: TrainJob, *, has_begun: bool = False) -> None:
    """Raise UserError for shards, caption tables, tokenizer and weights that are not there, or far too few clips.

    Weights and tokenizer of a run that `has_begun` need not be there: its checkpoint has them. The clips are those of
    the index, with and without captions: what remains of them is counted when they are loaded.
    """
    ensure_readable(*inputs_of(job))
    require_trackers(job.trackers)
    if job.model.pretrained is None:
        config = preset(job.model.preset)  # an unknown name fails here, not in a worker
        _require_its_tokenizer(job, config)
        _require_drop_path(job, config)
        regions_read(job.data.features, config, option="data.features", num_frames=job.data.num_frames)
    if not has_begun:
        look_at_model(job.model.pretrained)
        _look_at_trained_part(job)
        if job.data.tokenizer is not None and Path(job.data.tokenizer).is_dir():
            look_at_model(job.data.tokenizer, holds=TOKENIZER_FILES)
    for uri in job.data.caption_tables:
        read_summary(Place.of(uri))
    for uri in job.data.classes:
        if "://" not in uri and not Path(uri).is_file():
            raise UserError("no file of classes", got=uri, wanted="a csv or JSON that gives clips their classes")
    features = job.weighting.features
    if features is not None and "://" not in features and not Path(features).is_file():
        raise UserError("no table of weighting.features", got=features, wanted="a CSV or Parquet file with clip_id")
    counts = look_at_index(Place.of(job.shards)) if job.shards is not None else None
    if counts is not None and not job.answers_questions:  # whose samples are questions
        check_sizes(job, counts | ({"meta": job.data.meta_draw} if job.data.meta_draw else {}))


def _require_its_tokenizer(job: TrainJob, config: DualEncoderConfig) -> None:
    """Raise UserError where the tokenizer that would be trained makes ids that the preset's model misreads."""
    kind = getattr(config, "tokenizer_kind", "clip")
    if job.data.tokenizer is None and job.data.tokenizer_kind != kind:
        raise UserError(
            f"preset {job.model.preset} reads another kind of tokens",
            got=f"data.tokenizer_kind {job.data.tokenizer_kind}",
            wanted=kind,
            remedy=f"set data.tokenizer_kind to {kind}, or data.tokenizer to a folder of such a tokenizer",
        )


def _require_drop_path(job: TrainJob, config: DualEncoderConfig) -> None:
    """Raise UserError where a job cannot set the stochastic depth of the preset's model."""
    if job.model.drop_path is not None and not hasattr(config, "drop_path"):
        raise UserError(
            f"preset {job.model.preset} takes no model.drop_path",
            got=job.model.drop_path,
            wanted="a TimeSformer",
            remedy="leave model.drop_path out",
        )


def _look_at_trained_part(job: TrainJob) -> None:
    """Raise UserError for names that the model has not. The weights of a hub id and of a URI are not followed."""
    settings, source = job.model, job.model.pretrained
    if not (settings.freeze or settings.lora):
        return
    if source is None:
        model = outline_preset(settings.preset)
    else:
        folder = Path(without_prefix(source))
        if not folder.is_dir():
            return
        model = outline_model(folder, prefix=prefix_of(source))
    plan_trained_part(model, freeze=settings.freeze, lora=settings.lora)


def require_adams_step(job: TrainJob) -> None:
    """Raise UserError for a lookahead by Adam that is no Adam step: its default is a learning rate of SGD's."""
    inner, longest = job.meta.inner, _LONGEST_ADAM_STEP * job.optim.lr
    if job.is_meta_learned and inner.optimizer == "adam" and not inner.relative and inner.lr > longest:
        raise UserError(
            "meta.inner.lr is no step of Adam's, which moves every weight by about that",
            got=f"{inner.lr:g}, {inner.lr / job.optim.lr:.3g} times optim.lr",
            wanted=f"about optim.lr = {job.optim.lr:g}, {longest:g} at most",
            remedy="give meta.inner.lr",
        )


def require_exact_differences(job: TrainJob) -> None:
    """Raise UserError for finite differences in the bfloat16 that precision auto is on a GPU.

    Asked of new runs and of those that move to a GPU, as the config of an old one must load, to be audited or to go on.
    """
    method = job.meta.hypergradient
    if job.is_meta_learned and "difference" in method and job.precision == "auto" and job.use_gpu:
        raise UserError(
            "meta.hypergradient: finite differences mean nothing in bfloat16",
            got=f"{method} with precision auto, which is bfloat16 with use_gpu",
            wanted="meta.hypergradient forward_mode, or precision float32",
        )


def refuse_unread_scale(job: TrainJob) -> None:
    """Raise UserError for a learning rate of the head where the backbone answers by itself, whose rate is optim.lr.

    Asked of new runs alone: it changed nothing in those that began with one.
    """
    if job.answers_questions and job.task.head.kind == "own" and job.task.head_lr_scale != 1.0:
        raise UserError(
            "task.head_lr_scale is read by no head",
            got=f"{job.task.head_lr_scale:g} with task.head.kind own",
            wanted="1, or another kind of head",
            remedy="optim.lr and optim.layer_decay are the backbone's rates",
        )


def check_sizes(job: TrainJob, num_clips: Mapping[str, int]) -> None:
    """Raise UserError where a split has fewer clips, or questions where those are the samples, than one batch of it."""
    require_one_batch(job, num_clips["train"])
    if job.is_meta_learned and num_clips["meta"] < job.meta.batch_size:
        raise UserError(
            "meta-set too small",
            got=f"{num_clips['meta']} {'questions' if job.answers_questions else 'clips'}",
            wanted=f"at least meta.batch_size = {job.meta.batch_size}",
            remedy="mark clips with split meta, set data.meta_draw, or take weighting.kind uniform",
        )
