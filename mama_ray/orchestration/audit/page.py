"""The page of an audit, from its table and the frames of the clips that it shows."""

from collections import defaultdict

import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.auditing.table import KEEP
from mama_ray.reporting.audit_page import AuditReport, SuspectPair, write_audit_report
from mama_ray.reporting.provenance import read_provenance
from mama_ray.reporting.run_summary import load_clips
from mama_ray.storage.places import Place

_NUM_SHOWN = 48


def write_audit_page(folder: Place, table: pa.Table, summary: dict, shards: str) -> str:
    """Write the page; returns its URI."""
    suspects = table.filter(pc.not_equal(table["verdict"], KEEP)).sort_by("score")
    shown = suspects.slice(0, _NUM_SHOWN).to_pylist()
    frames = load_clips(Place.of(shards), [row["clip_id"] for row in shown])
    by = summary["by"]
    pairs = [
        SuspectPair(
            clip_id=row["clip_id"],
            caption=row["caption"],
            source=row["source"],
            reason=f"{by} {row[by]:.2f}",
            frames=frames[row["clip_id"]][0] if row["clip_id"] in frames else None,
            better=row["better_text"],
            others=tuple(other["text"] for other in row["others"]),
        )
        for row in shown
    ]
    name = summary["run"].rstrip("/").rpartition("/")[2]
    report = AuditReport(
        title=f"Audit of {name}",
        points=_points(table),
        topics=_topics(table),
        suspects=tuple(pairs),
        num_suspects=len(suspects),
        facts={
            "clips": f"{summary['num_clips']:,}",
            "suspects": f"{summary['num_excluded']:,}",
            "with a better caption": f"{summary['num_rewritten']:,}",
        },
        provenance={
            **{name: str(summary[name]) for name in ("run", "shards", "step", "encoder")},
            "suspects are": f"the {summary['share']:.0%} of clips with the "
            + ("highest mean loss" if by == "loss" else f"lowest {by}"),
            **read_provenance(Place.of(summary["run"]), []),
        },
    )
    return write_audit_report(folder, report)


def _points(table: pa.Table) -> dict[str, tuple[list[float], list[float]]]:
    known = table.filter(pc.and_(pc.is_valid(table["weight"]), pc.is_valid(table["loss"])))
    points: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in known.select(["source", "loss", "weight"]).to_pylist():
        points[row["source"]][0].append(row["loss"])
        points[row["source"]][1].append(row["weight"])
    return dict(points)


def _topics(table: pa.Table) -> dict[str, float]:
    means = table.filter(pc.is_valid(table["topic"])).group_by("topic").aggregate([("weight", "mean")])
    found = zip(means["topic"].to_pylist(), means["weight_mean"].to_pylist(), strict=True)
    return {topic: mean for topic, mean in found if mean is not None}
