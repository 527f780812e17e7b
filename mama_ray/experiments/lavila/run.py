"""LaViLa as one job: human pairs -> baseline -> narrator -> narrations and paraphrases -> dual encoders, and one table.

python jobs/lavila.py --storage URI      # with the same again: what is done already is found
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from mama_ray.captioning.narrator.gated import longest_caption
from mama_ray.config import with_overrides
from mama_ray.data.index import read_index, select_split
from mama_ray.data.index_look import look_at_index
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import Result, check_comparable, describe_protocol
from mama_ray.experiments.lavila.job import BASELINE, LavilaJob
from mama_ray.experiments.lavila.rephraser import taught_rephraser
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.run import evaluate
from mama_ray.orchestration.narrator.run import MODEL_FOLDER
from mama_ray.orchestration.narrator.run import run as train_narrator
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.rephrase.job import RephraseJob
from mama_ray.orchestration.rephrase.run import rephrase
from mama_ray.orchestration.runs.report import report_run, write_page
from mama_ray.orchestration.runs.settings import count_steps
from mama_ray.orchestration.training.data import load_run_data
from mama_ray.orchestration.training.job import TrainJob
from mama_ray.orchestration.training.run import train
from mama_ray.reporting.content import RunReport
from mama_ray.storage.first_look import ensure_readable, ensure_writable
from mama_ray.storage.places import Place, absolute_uri, join_uri

logger = logging.getLogger(__name__)

_HUMAN = "human"
# What a dual encoder reads: shares of its samples by source. Paraphrases count as people's words, as LaViLa has it.
SHARES: dict[str, dict[str, float]] = {
    _HUMAN: {"human": 1.0},
    "human + rephrased": {"human": 0.5, "rephrased": 0.5},
    "human + narrated": {"human": 0.5, "generated": 0.5},
    "all": {"human": 0.25, "rephrased": 0.25, "generated": 0.5},
}


def run_lavila(job: LavilaJob) -> str:
    """Take all steps, print the table of what each adds; returns the line that names the report."""
    start = time.perf_counter()
    job = with_overrides(job, {"storage": absolute_uri(job.storage)})
    _require_room_for_captions(job)
    ensure_readable(job.shards, job.rephraser)
    ensure_writable(job.storage)
    if job.shards is not None:
        look_at_index(Place.of(job.shards))
    connect()
    shards = absolute_uri(job.shards) if job.shards else embedded_shards(job.corpus, job.storage)
    job = with_overrides(job, {"train.shards": shards})
    num_steps = count_steps(job.train, _count_train_clips(shards))
    results: dict[str, Result] = {}
    pages: list[RunReport] = []
    tables: list[str] = []
    for label, shares in _steps(job).items():
        if label != _HUMAN and not tables:
            tables = _write_texts(job, shards)
        page, results[label] = _dual_encoder(job, label, shares, tables, num_steps)
        pages.append(page)
        logger.info("%s: t2v R@1 %.1f after %.0f s", label, pages[-1].metrics["t2v_R@1"], time.perf_counter() - start)
    folder, title = join_uri(job.storage, job.name, "report"), "What narrations and paraphrases add"
    report = write_page(folder, title, pages, results, lead=_lead(job, num_steps))
    print(_table(pages, results))  # noqa: T201 - the job's result
    return f"LaViLa done in {time.perf_counter() - start:.0f} s: {report}"


def _require_room_for_captions(job: LavilaJob) -> None:
    """Raise UserError where the narrator has no place for captions: it would say so after the first dual encoder."""
    longest = longest_caption(job.narrator.model)
    lengths = {
        "narrator.data.max_caption_tokens": job.narrator.data.max_caption_tokens,
        "caption.sampling.max_tokens": job.caption.sampling.max_tokens,
    }
    for name, length in lengths.items():
        if longest is not None and length > longest:
            got, wanted = f"{name} {length}", f"at most {longest}"
            raise UserError(
                "captions are too long for the narrator", got=got, wanted=wanted, remedy=f"--{name} {longest}"
            )


def _steps(job: LavilaJob) -> Mapping[str, dict[str, float]]:
    """Return the dual encoders by name; without a rephraser, those that need no paraphrases."""
    if job.rephraser is not None or job.shards is None:
        return SHARES
    logger.warning("no rephraser was named, and the one that this job teaches knows the embedded corpus alone")
    return {label: shares for label, shares in SHARES.items() if "rephrased" not in shares}


def _write_texts(job: LavilaJob, shards: str) -> list[str]:
    """Teach the narrator, narrate the clips, rephrase what people said; returns the caption tables."""
    folder = join_uri(job.storage, job.name)
    narrator_run = _run_name(job, "narrator")
    changes: dict = {"shards": shards, "storage": job.storage, "run": narrator_run}
    if job.narrator.model.gated.video_encoder == BASELINE:
        changes["model.gated.video_encoder"] = join_uri(job.storage, _run_name(job, _HUMAN))
    logger.info("%s", train_narrator(with_overrides(job.narrator, changes)))
    narrations = join_uri(folder, "narrated")
    model = join_uri(job.storage, narrator_run, MODEL_FOLDER)
    changes = {"shards": shards, "output": narrations, "model": model, "split": "train"}
    logger.info("%s", caption(with_overrides(job.caption, changes)))
    if job.rephraser is None and job.shards is not None:
        return [narrations]
    paraphrases = join_uri(folder, "rephrased")
    options = {"decoding": job.decoding, "wording": job.wording}
    logger.info("%s", rephrase(RephraseJob(shards=shards, model=_rephraser(job), output=paraphrases, **options)))
    return [narrations, paraphrases]


def _rephraser(job: LavilaJob) -> str:
    if job.rephraser is not None:
        return job.rephraser
    home = Place.of(join_uri(job.storage, job.name, "rephraser"))
    if not home.is_local:
        raise UserError(
            "the T5 of the embedded corpus is kept on a disk", got=home.uri, wanted="a local folder as storage",
            remedy="name a rephraser, or another --storage",
        )  # fmt: skip
    return taught_rephraser(job.corpus, Path(home.path))


def _count_train_clips(shards: str) -> int:
    """Return how many clips of train there are, with a text or without."""
    return len(select_split(read_index(Place.of(shards), columns=["split"]), "train"))


def _epochs_of(job: TrainJob, num_steps: int) -> float:
    """Return the epochs that take `num_steps`: one has a place for each clip with a text that is read."""
    assert job.shards is not None
    num_clips = load_run_data(job.shards, job.data, seed=job.seed, tokenizer=None).summary["num_clips"]["train"]
    return (num_steps - 0.5) * job.global_batch_size / num_clips  # a part of a step is taken whole


def _dual_encoder(
    job: LavilaJob, label: str, shares: dict[str, float], tables: list[str], num_steps: int
) -> tuple[RunReport, Result]:
    """Train and measure one dual encoder."""
    name = _run_name(job, label)
    changes: dict = {"storage": job.storage, "run": name, "data.shares": shares}
    if label != _HUMAN:
        changes["data.caption_tables"] = tables
    training = with_overrides(job.train, changes)
    logger.info("%s: training", label)
    train(with_overrides(training, {"num_epochs": _epochs_of(training, num_steps)}))
    run, shards = join_uri(job.storage, name), training.shards
    assert shards is not None
    evaluate(EvaluateJob(checkpoint=run, shards=shards, benchmark=job.benchmark))
    facts = {source: f"{share:.0%}" for source, share in shares.items()}
    return report_run(label, run, shards, benchmark=job.benchmark, facts=facts)


def _run_name(job: LavilaJob, label: str) -> str:
    return f"{job.name}-{label.replace(' + ', '-')}"


def _lead(job: LavilaJob, num_steps: int) -> str:
    corpus = job.corpus
    told = (
        f"Of {corpus.num_train} clips people told {corpus.human_rate:.0%}; "
        if job.shards is None
        else "People told some of the clips; "
    )
    has_paraphrases = job.rephraser is not None or job.shards is None
    rephrased = ", and a rephraser said people's words in others" if has_paraphrases else ""
    return (
        f"{told}a narrator that learned from these wrote texts of all of them{rephrased}. The dual encoders start from "
        f"the same weights and take {num_steps} steps each; they differ in the texts that they read. Each was measured "
        "once, on texts by people. One run each: what lies within the spread of seeds is not told apart."
    )


def _table(pages: list[RunReport], results: dict[str, Result]) -> str:
    """Recall of the dual encoders, and what each has over the baseline."""
    check_comparable(results)
    heads = [f"{way}_{key}" for way in ("t2v", "v2t") for key in ("R@1", "R@5", "mean_rank")]
    lines = [describe_protocol(next(iter(results.values())).protocol)]
    lines.append(f"{'':20}" + "".join(f"{name:>15}" for name in heads) + f"{'t2v R@1 over':>15}")
    for page in pages:
        values = "".join(f"{page.metrics[name]:>15.1f}" for name in heads)
        lines.append(f"{page.name:20}{values}{page.metrics['t2v_R@1'] - pages[0].metrics['t2v_R@1']:>+15.1f}")
    return "\n".join(lines)
