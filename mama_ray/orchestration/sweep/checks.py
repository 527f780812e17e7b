"""What is wrong with a new sweep, told before its trials run: each would fail, or be another than was asked for.

Asked of new sweeps alone: one that has begun goes on, and its failed trials tell why.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mama_ray.errors import UserError
from mama_ray.orchestration.sweep.job import SweepJob, require_measured
from mama_ray.orchestration.sweep.plan import SweepPlan, jobs_of
from mama_ray.orchestration.training.inputs import check_sizes, look_at_inputs
from mama_ray.orchestration.training.job import TrainJob, inputs_of
from mama_ray.storage.failures import StorageError

_DEFAULT_SEEDS = SweepJob.model_fields["seeds"].default


def refuse_unsound(job: SweepJob, plan: SweepPlan) -> None:
    """Raise UserError for seeds that would do nothing, for other places of the trials, and for a variant, a choice or
    an end of a domain whose inputs are not there or whose trials report no objective; it needs no Ray."""
    _refuse_unread_seeds(job)
    _refuse_names_of_trials(plan)
    looked_at = [_reads(plan.base)]
    caption_modes = set() if plan.settings else {plan.base.data.caption_mode}
    for name, one in jobs_of(plan):
        caption_modes.add(one.data.caption_mode)
        if len(caption_modes) > 1:
            raise UserError(
                f"{name} is refused: values of val on single captions and on paragraphs cannot be compared",
                got=f"data.caption_mode {' and '.join(sorted(caption_modes))}",
                wanted="one for all trials",
            )
        with _told_of(name):
            for metric in job.objectives:
                require_measured(metric, one)
            if _reads(one) not in looked_at:
                look_at_inputs(one)
                looked_at.append(_reads(one))


def check_all_sizes(plan: SweepPlan, counts: Mapping[str, int]) -> None:
    """Raise UserError for a variant, a choice or an end of a domain that wants larger batches than there are clips, or
    questions, by the counts of the base; what reads other data is counted by its trial."""
    for name, one in jobs_of(plan):
        if _reads(one) == _reads(plan.base):
            with _told_of(name):
                check_sizes(one, counts)


def _reads(job: TrainJob) -> tuple:
    return inputs_of(job), job.model, job.data, job.corpus, job.task, job.objective.mixes_captions


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except ValueError as error:
        raise UserError(f"{name} is refused: {error}") from error


def _refuse_names_of_trials(plan: SweepPlan) -> None:
    for name, keys in (("search_space", plan.distributions), *(plan.settings or {}).items()):
        if taken := sorted({"run", "storage"} & set(keys)):
            raise UserError(f"{name} is refused: the sweep itself says where its trials lie", got=", ".join(taken))


def _refuse_unread_seeds(job: SweepJob) -> None:
    if not job.variants and job.seeds != _DEFAULT_SEEDS:
        raise UserError(
            "seeds are those of an ablation, which has variants",
            got=f"seeds {list(job.seeds)} with a search_space",
            wanted="train.seed, which all trials of a search have",
        )
    if not job.variants:
        return
    replaced = [name for name, settings in job.variants.items() if "seed" in settings]
    if replaced:
        raise UserError(f"variant {replaced[0]} is refused: an ablation's seeds are every variant's", got="seed")
    if job.train.seed not in (TrainJob.model_fields["seed"].default, *job.seeds):
        raise UserError(
            "an ablation is trained with its seeds, not with train.seed",
            got=f"train.seed {job.train.seed} and seeds {list(job.seeds)}",
            wanted="seeds alone",
        )
