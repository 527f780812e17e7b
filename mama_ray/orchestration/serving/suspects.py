"""The rows of an audit for the page of weights: filtered, the least trusted first, with what a person has marked."""

from collections import Counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mama_ray.auditing.exclusions import Exclusion
from mama_ray.auditing.table import KEEP, REWRITE
from mama_ray.orchestration.audit.corrected import corrected_row
from mama_ray.orchestration.serving.marks import MarkStore

_MAX_POINTS = 2500  # an SVG of more is slow and no clearer
_COLUMNS = (
    "clip_id", "topic", "caption", "caption_id", "source", "num_records", "weight", "loss", "cosine", "epochs",
    "weight_by_epoch", "loss_by_epoch", "fit", "share_better", "others", "better_text", "better_source", "better_fit",
    "score", "verdict",
)  # fmt: skip
Shown = Literal["all", "suspects", "marked", "unmarked"]


class Suspects:
    """An audit's table, by score, with the marks of its captions.

    Attributes:
        table: rows of AUDIT_SCHEMA, those without a score last.
        facets: captions by source and by topic, with mean weight and mean loss, the least weight first.
    """

    def __init__(self, table: pa.Table, marks: MarkStore) -> None:
        self.table = table.sort_by([("score", "ascending"), ("clip_id", "ascending")]).combine_chunks()
        self._marks = marks
        self._sources, self._topics = (_names(self.table[name]) for name in ("source", "topic"))
        self._is_suspect = pc.not_equal(self.table["verdict"], KEEP).to_numpy(zero_copy_only=False)
        self._rows = {pair: row for row, pair in enumerate(zip(*self._ids(), strict=True))}
        self.facets = {"sources": self._groups(self._sources), "topics": self._groups(self._topics)}

    def has(self, clip_id: str, caption_id: str) -> bool:
        """Tell whether the audit has judged this caption."""
        return (clip_id, caption_id) in self._rows

    def counts(self) -> dict[str, int]:
        """Return how many clips, suspects and marks of each kind there are."""
        marks = Counter(mark.mark for mark in self._marks.all() if self.has(mark.clip_id, mark.caption_id))
        numbers = {"clips": len(self.table), "suspects": int(self._is_suspect.sum())}
        return numbers | {name: marks[name] for name in ("wrong", "fine", "rewrite")}

    def pairs(self, *, shown: Shown, source: str | None, topic: str | None, offset: int, limit: int) -> dict[str, Any]:
        """Return a page of rows, the lowest score first, and how many there are in all."""
        rows = self._chosen(shown, source, topic)
        page = self.table.select(list(_COLUMNS)).take(pa.array(rows[offset : offset + limit])).to_pylist()
        for row in page:
            mark = self._marks.get(row["clip_id"], row["caption_id"])
            row["mark"], row["rewritten"] = (mark.mark, mark.text) if mark else ("", "")
        return {"total": len(rows), "pairs": page}

    def points(self, *, shown: Shown, source: str | None, topic: str | None) -> dict[str, Any]:
        """Return loss, weight, source, topic and clip of captions that have both numbers, some drawn of very many."""
        rows = self._chosen(shown, source, topic)
        losses, weights = (self.table[name].to_numpy(zero_copy_only=False) for name in ("loss", "weight"))
        rows = rows[np.isfinite(losses[rows]) & np.isfinite(weights[rows])]
        total = len(rows)
        if total > _MAX_POINTS:
            rows = np.sort(np.random.default_rng(0).choice(rows, size=_MAX_POINTS, replace=False))
        ids = self.table["clip_id"].take(pa.array(rows)).to_pylist()
        return {
            "total": total,
            "loss": np.round(losses[rows], 4).tolist(),
            "weight": np.round(weights[rows], 4).tolist(),
            "source": self._sources[rows].tolist(),
            "topic": self._topics[rows].tolist(),
            "clip_id": ids,
        }

    def exclusions(self, *, with_unmarked: bool) -> list[Exclusion]:
        """Return the captions that were marked wrong or rewritten, on demand the audit's unmarked suspects too."""
        found = []
        for (clip_id, caption_id), row in self._rows.items():
            mark = self._marks.get(clip_id, caption_id)
            if mark is not None and mark.mark != "fine":
                found.append((row, f"marked {mark.mark}"))
            elif mark is None and with_unmarked and self._is_suspect[row]:
                found.append((row, f"suspect: {self.table['verdict'][row]}"))
        captions = self.table["caption"]
        ids = list(self._rows)
        return [Exclusion(*ids[row], reason, captions[row].as_py()) for row, reason in found]

    def corrections(self, *, with_unmarked: bool) -> list[dict]:
        """Return rows of a caption table: what was rewritten, and on demand the audit's better captions."""
        found = []
        for (clip_id, caption_id), row in self._rows.items():
            mark = self._marks.get(clip_id, caption_id)
            sha256 = self.table["video_sha256"][row].as_py()
            if mark is not None and mark.mark == "rewrite" and mark.text.strip():
                found.append(corrected_row(clip_id, sha256, mark.text.strip(), "human", by="person"))
            elif mark is None and with_unmarked and self.table["verdict"][row].as_py() == REWRITE:
                text, source = self.table["better_text"][row].as_py(), self.table["better_source"][row].as_py()
                found.append(corrected_row(clip_id, sha256, text, source, by="audit"))
        return found

    def _ids(self) -> tuple[list[str], list[str]]:
        return self.table["clip_id"].to_pylist(), self.table["caption_id"].to_pylist()

    def _chosen(self, shown: Shown, source: str | None, topic: str | None) -> np.ndarray:
        keep = self._is_suspect.copy() if shown == "suspects" else np.ones(len(self.table), bool)
        if shown in ("marked", "unmarked"):
            keep[:] = shown == "unmarked"
            for mark in self._marks.all():
                row = self._rows.get((mark.clip_id, mark.caption_id))
                if row is not None:
                    keep[row] = shown == "marked"
        if source is not None:
            keep &= self._sources == source
        if topic is not None:
            keep &= self._topics == topic
        return np.flatnonzero(keep)

    def _groups(self, names: np.ndarray) -> list[dict[str, Any]]:
        table = pa.table({"name": names, "weight": self.table["weight"], "loss": self.table["loss"]})
        found = table.group_by("name").aggregate([("weight", "mean"), ("loss", "mean"), ("name", "count")])
        rows = [
            {"name": row["name"], "weight": row["weight_mean"], "loss": row["loss_mean"], "count": row["name_count"]}
            for row in found.to_pylist()
        ]
        return sorted(rows, key=lambda row: (row["weight"] is None, row["weight"]))


def _names(column: pa.ChunkedArray) -> np.ndarray:
    return np.array([name or "" for name in column.to_pylist()])
