"""The report card of a captioning job: its page and its JSON, written by a task that has the pictures it shows."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import ray

from mama_ray.captioning.pictures.settings import FRAMES, GRID
from mama_ray.captioning.pictures.show import ShowConfig, contact_sheet
from mama_ray.captioning.table import file_name
from mama_ray.orchestration.captioning.finish import TableSummary
from mama_ray.orchestration.captioning.parts import CLIPS_PER_FILE
from mama_ray.orchestration.captioning.plan import CaptionPlan
from mama_ray.orchestration.captioning.pool import PoolHistory
from mama_ray.orchestration.captioning.progress import JobSpeed
from mama_ray.reporting.caption_card import CaptionCard, CaptionSample, write_caption_card
from mama_ray.storage.places import Place

_TASK_CPUS = 0.5
_NUM_GOOD, _NUM_BAD, _NUM_COMMON = 8, 24, 12
_SPEED_NOTE = "From an engine's start to its last commit. Speeds and times are of the job's last start."
_BUSY = 0.9  # share of their time from which engines have hardly waited


def write_caption_report(
    plan: CaptionPlan, constants: dict, summary: ray.ObjectRef, speed: JobSpeed, history: PoolHistory
) -> dict:
    """Write `report/index.html` and `report/card.json` under the output; return the counts for the table's summary.

    `summary` refers to a TableSummary: the driver sees counts alone.
    """
    return ray.get(_write.options(name="caption: report").remote(plan, constants, summary, speed, history.sizes))


@ray.remote(num_cpus=_TASK_CPUS)
def _write(
    plan: CaptionPlan, constants: dict, summary: TableSummary, speed: JobSpeed, pool: list[tuple[float, int]]
) -> dict:
    samples = [_sample(plan, *chosen) for chosen in _chosen(summary)]
    card = replace(_card(plan, constants, summary, speed, pool), samples=tuple(samples))
    folder = Place.of(plan.output)
    write_caption_card(folder / "report", card)
    counts = {name: dict(getattr(summary, name)) for name in ("outcomes", "flags")}
    error = summary.errors.most_common(1)[0][0] if summary.errors else None
    return {"num_rows": summary.num_rows, "num_tokens": summary.num_tokens, **counts, "error": error}


def _card(
    plan: CaptionPlan, constants: dict, summary: TableSummary, speed: JobSpeed, pool: list[tuple[float, int]]
) -> CaptionCard:
    counts = speed.counts
    sampling = plan.sampling
    lengths = [summary.lengths[number] for number in range(max(summary.lengths, default=-1) + 1)]
    opening, share = (summary.openings.most_common(1) or [("", 0)])[0]
    has_run = bool(counts.get("num_clips"))
    stages = {
        "read": counts.get("read_s", 0.0),
        "decode and grid": counts.get("decode_s", 0.0),
        "waiting for and in the engine": counts.get("caption_s", 0.0),
        "commit": counts.get("write_s", 0.0),
    }
    return CaptionCard(
        title="Captions",
        num_clips=plan.num_clips,
        num_good=summary.outcomes["good"],
        num_flagged=summary.outcomes["flagged"],
        num_errors=summary.outcomes["error"],
        facts={
            "model": constants["model"],
            "prompt": plan.captioner.prompt,
            **shown_facts(plan.show),
            "sampling": f"{sampling.num_captions} per clip, temperature {sampling.temperature:g}, seed {sampling.seed}",
            "clips": f"{plan.num_clips:,} in {plan.source.description}",
        },
        flags=dict(summary.flags.most_common()),
        errors=summary.errors.most_common(20),
        lengths=lengths,
        vocabulary=len(summary.words),
        is_vocabulary_exact=not summary.forgot_words,
        common=[(text, count) for text, count in summary.captions.most_common(_NUM_COMMON) if count > 1],
        opening=(opening, share / max(1, sum(summary.openings.values()))) if opening else None,
        stages=stages if has_run else {},
        duration_s=speed.duration_s if has_run else None,
        clips_per_s=speed.clips_per_s if has_run else None,
        tokens_per_s=speed.tokens_per_s if has_run else None,
        busy_share=speed.busy_share,
        limit=what_limits(speed.busy_share, stages),
        speed_note=_SPEED_NOTE if has_run else "",
        pool=tuple(pool),
    )


def shown_facts(how: ShowConfig) -> dict[str, str]:
    """Return in short pairs what the engines were shown of each clip."""
    if how.kind == GRID:
        layout = how.grid.layout
        size = f"{layout.rows} x {layout.columns}, {how.side} px"
        return {"grid": size, "key frames": how.grid.key_frames.method}
    size = f"{how.side} x {how.side} px" if how.kind == FRAMES else f"at most {how.side} px"
    return {how.kind: f"{how.num_frames} frames, {size}"}


def what_limits(busy_share: float | None, stages: Mapping[str, float]) -> str:
    """Return in a sentence what the engines waited for, "" where they hardly did.

    Busy engines prove nothing: one that writes a single caption at a time is busy, too. Idle ones do.
    """
    if busy_share is None or busy_share >= _BUSY:
        return ""
    before = {"reading from the storage": stages.get("read", 0.0), "decoding": stages.get("decode and grid", 0.0)}
    slowest = max(before, key=lambda stage: before[stage])
    return f"In the rest they waited for clips: {slowest} holds the job up, not the engines."


def _chosen(summary: TableSummary) -> list[tuple[int, str]]:
    """Return rows of the index to show, and as what: of every flag and of errors in turn, and a few good ones."""
    bad = [rows for name, rows in summary.samples.items() if name not in ("good", "flagged")]
    turns = [rows[turn] for turn in range(max(map(len, bad), default=0)) for rows in bad if turn < len(rows)]
    good = summary.samples.get("good", [])[:_NUM_GOOD]
    return [(row, "bad") for row in list(dict.fromkeys(turns))[:_NUM_BAD]] + [(row, "good") for row in good]


def _sample(plan: CaptionPlan, row: int, shown_as: str) -> CaptionSample:
    """Return what the table says of one clip, its worst caption or its first good one, with its grid."""
    folder = Place.of(plan.output)
    record = ray.get(plan.table).slice(row, 1).to_pylist()[0]
    place = folder / file_name(row // CLIPS_PER_FILE)
    columns = ["clip_id", "caption", "error", "flags"]
    wanted = [("clip_id", "=", record["clip_id"])]
    rows = pq.read_table(place.path, filesystem=place.filesystem, columns=columns, filters=wanted).to_pylist()
    choose = min if shown_as == "good" else max
    chosen = choose(rows, key=lambda own: (own["error"] is not None, len(own["flags"])))
    return CaptionSample(
        clip_id=chosen["clip_id"],
        caption=chosen["caption"],
        error=chosen["error"],
        flags=tuple(chosen["flags"]),
        pixels=_pixels(plan, record),
    )


def _pixels(plan: CaptionPlan, record: dict) -> np.ndarray | None:
    (shown,) = plan.source.show([record], plan.show)
    return None if isinstance(shown, str) else contact_sheet(shown.content)
