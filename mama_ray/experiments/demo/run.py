"""The demo: plain InfoNCE, learned weights, the margin, generated captions, on the same noisy corpus and budget.

python jobs/demo.py --storage URI
"""

import logging
import re
import time

from mama_ray.config import with_overrides
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import Result, check_comparable, describe_protocol
from mama_ray.experiments.demo.job import DemoJob
from mama_ray.orchestration.captioning.run import caption
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.run import evaluate
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.runs.report import report_run, write_page
from mama_ray.orchestration.training.run import train
from mama_ray.reporting.content import RunReport
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.places import absolute_uri, join_uri

logger = logging.getLogger(__name__)

VARIANTS = {
    "plain InfoNCE": {"weighting.kind": "uniform", "objective.margin": 0.0},
    "learned weights": {"weighting.kind": "learned", "objective.margin": 0.0},
    "learned weights + margin": {"weighting.kind": "learned"},
    "... + generated captions": {"weighting.kind": "learned", "data.captions": {"human": 0.5, "generated": 0.5}},
}


def run_demo(job: DemoJob) -> str:
    """Make the corpus, caption it, train and evaluate the variants, print the table; returns the line naming the
    report.
    """
    if job.train.objective.margin == 0:
        raise UserError(
            "train.objective.margin", got=0, wanted="a margin for the runs with one", remedy="0.1 is the default"
        )
    start = time.perf_counter()
    job = with_overrides(job, {"storage": absolute_uri(job.storage)})
    ensure_writable(job.storage)
    connect()
    shards = job.train.shards or embedded_shards(job.train.corpus, job.storage)
    logger.info("shards ready after %.0f s", time.perf_counter() - start)
    captions = join_uri(job.storage, job.name, "captions")
    logger.info("%s", caption(job.caption.model_copy(update={"shards": shards, "output": captions})))
    pages: list[RunReport] = []
    results: dict[str, Result] = {}
    for label, overrides in VARIANTS.items():
        run = f"{job.name}-{re.sub('[^a-z]+', '-', label.lower()).strip('-')}"
        place = {"shards": shards, "storage": job.storage, "run": run}
        if "data.captions" in overrides:
            place["data.caption_tables"] = [captions]
        variant = with_overrides(job.train, overrides | place)
        logger.info("%s: training", label)
        train(variant)
        run_uri = join_uri(job.storage, run)
        evaluate(EvaluateJob(checkpoint=run_uri, shards=shards, benchmark="embedded"))
        facts = {"margin": f"{variant.objective.margin:g}", "weights": variant.weighting.kind}
        page, results[label] = report_run(label, run_uri, shards, benchmark="embedded", facts=facts)
        pages.append(page)
        logger.info("%s: t2v R@1 %.1f after %.0f s", label, page.metrics["t2v_R@1"], time.perf_counter() - start)
    report = write_page(
        join_uri(job.storage, job.name, "report"),
        "What learned weights, the angular margin and generated captions do on a noisy corpus",
        pages,
        results,
        lead=_lead(job),
    )
    print(_table(pages, results))  # noqa: T201 - the demo's result
    return f"demo done in {time.perf_counter() - start:.0f} s: {report}"


def _lead(job: DemoJob) -> str:
    corpus = job.train.corpus
    return (
        f"{len(VARIANTS)} dual encoders learned from the same {corpus.num_train} clips, of whose captions "
        f"{corpus.swapped_rate:.0%} belong to another clip, "
        f"{corpus.wrong_rate:.0%} state a wrong fact and {corpus.incomplete_rate:.0%} leave facts out. "
        f"The weight net learned on {corpus.num_meta} clean clips; all are evaluated on a clean, balanced test split. "
        "The last run reads a caption by the embedded narrator in place of a clip's own every second time; it learned "
        "on clean captions of another corpus of this kind, so it brings knowledge that the others do not have."
    )


def _table(pages: list[RunReport], results: dict[str, Result]) -> str:
    """Recall and cost of the runs in one table; the cost is the time of the steps, without start-up and validation."""
    check_comparable(results)
    heads = [f"{way}_{key}" for way in ("t2v", "v2t") for key in ("R@1", "R@5", "R@10", "median_rank")]
    head = " " * 26 + "".join(f"{name.replace('median_rank', 'median'):>11}" for name in heads)
    lines = [describe_protocol(next(iter(results.values())).protocol), f"{head}{'train s':>10}{'x plain':>9}"]
    for page in pages:
        recalls = "".join(f"{page.metrics[name]:>11.1f}" for name in heads)
        lines.append(f"{page.name:<26}{recalls}{page.duration_s:>10.1f}{page.duration_s / pages[0].duration_s:>9.2f}")
    return "\n".join(lines)
