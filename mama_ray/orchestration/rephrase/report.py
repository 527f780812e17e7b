"""The report card of a rephrasing job: its page and its JSON, with captions beside what became of them."""

import pyarrow.parquet as pq
import ray

from mama_ray.captioning.table import file_name
from mama_ray.orchestration.captioning.parts import CLIPS_PER_FILE
from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.captioning.progress import JobSpeed
from mama_ray.orchestration.rephrase.finish import RephraseSummary
from mama_ray.orchestration.rephrase.plan import RephrasePlan, with_texts
from mama_ray.reporting.caption_card import CaptionCard, CaptionSample, write_caption_card
from mama_ray.storage.places import Place

_TASK_CPUS = 0.5
_NUM_SHOWN, _NUM_COMMON = 24, 12
_TOLD = {
    "num_kept": "kept",
    "num_equal": "equal to a human caption",
    "num_repeated": "repeated",
    "num_cut_off": "cut off",
    "num_empty": "without words",
}
_LEAD = (
    "Human captions in other words. Candidates that equal a human caption of the clip, or another paraphrase, were "
    "left out: where too few were left, a row says so."
)


def write_rephrase_report(
    plan: RephrasePlan, constants: dict, summary: ray.ObjectRef, speed: JobSpeed, history: PoolHistory
) -> dict:
    """Write `report/index.html` and `report/card.json` under the output; return the counts for the table's summary."""
    return ray.get(_write.remote(plan, constants, summary, speed, history.sizes))


@ray.remote(num_cpus=_TASK_CPUS, name="rephrase: report")
def _write(
    plan: RephrasePlan, constants: dict, summary: RephraseSummary, speed: JobSpeed, pool: list[tuple[float, int]]
) -> dict:
    write_caption_card(Place.of(plan.output) / "report", _card(plan, constants, summary, speed, pool))
    table = summary.table
    error = table.errors.most_common(1)[0][0] if table.errors else None
    return {
        "num_rows": table.num_rows,
        "num_tokens": table.num_tokens,
        "outcomes": dict(table.outcomes),
        "flags": dict(table.flags),
        "errors": dict(table.errors.most_common()),
        "candidates": {name: summary.candidates[key] for key, name in _TOLD.items()},
        "error": error,
    }


def _card(
    plan: RephrasePlan, constants: dict, summary: RephraseSummary, speed: JobSpeed, pool: list[tuple[float, int]]
) -> CaptionCard:
    table, decoding = summary.table, plan.decoding
    has_run = bool(speed.counts.get("num_clips"))
    opening, share = (table.openings.most_common(1) or [("", 0)])[0]
    how = f"seed {decoding.seed}, temperature {decoding.temperature:g}"
    if decoding.method == "beams":
        how = f"{decoding.num_groups} groups, penalty {decoding.diversity_penalty:g}"
    stages = {"rephrase": speed.counts.get("caption_s", 0.0), "commit": speed.counts.get("write_s", 0.0)}
    return CaptionCard(
        title="Rephrased captions",
        lead=_LEAD,
        num_clips=plan.num_clips,
        num_good=table.outcomes["good"],
        num_flagged=table.outcomes["flagged"],
        num_errors=table.outcomes["error"],
        facts={
            "model": constants["model"],
            "prompt": plan.rephraser.prompt,
            "decoding": f"{decoding.num_candidates} candidates by {decoding.method}, {how}, {decoding.num_kept} kept",
            "human captions": f"{plan.num_texts}",
            "candidates": ", ".join(f"{summary.candidates[key]} {name}" for key, name in _TOLD.items()),
        },
        flags=dict(table.flags.most_common()),
        errors=table.errors.most_common(20),
        lengths=[table.lengths[number] for number in range(max(table.lengths, default=-1) + 1)],
        vocabulary=len(table.words),
        is_vocabulary_exact=not table.forgot_words,
        common=[(text, count) for text, count in table.captions.most_common(_NUM_COMMON) if count > 1],
        opening=(opening, share / max(1, sum(table.openings.values()))) if opening else None,
        stages=stages if has_run else {},
        duration_s=speed.duration_s if has_run else None,
        clips_per_s=speed.clips_per_s if has_run else None,
        tokens_per_s=speed.tokens_per_s if has_run else None,
        busy_share=speed.busy_share,
        pool=tuple(pool),
        samples=tuple(_samples(plan, summary)),
    )


def _samples(plan: RephrasePlan, summary: RephraseSummary) -> list[CaptionSample]:
    """Return what the table says of drawn clips, with the captions that it was made from."""
    drawn = list(dict.fromkeys(row for rows in summary.table.samples.values() for row in rows))[:_NUM_SHOWN]
    folder, shown = Place.of(plan.output), []
    for index_row in sorted(drawn):
        (record,) = with_texts(ray.get(plan.table).slice(index_row, 1))
        place = folder / file_name(index_row // CLIPS_PER_FILE)
        wanted = [("clip_id", "=", record["clip_id"])]
        columns = ["sample", "caption", "error", "flags"]
        for row in pq.read_table(place.path, filesystem=place.filesystem, columns=columns, filters=wanted).to_pylist():
            source = record["texts"][row["sample"] // plan.decoding.num_kept] if record["texts"] else ""
            told = None if row["caption"] is None else f"{source} \u2192 {row['caption']}"
            error = row["error"] and " ".join(f"{row['error']} {source and f'({source})'}".split())
            shown.append(CaptionSample(record["clip_id"], told, error, tuple(row["flags"])))
    return shown
