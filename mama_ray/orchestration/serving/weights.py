"""The page "Weights": what a run's record says of captions, what a person says of it, and both as files to train on.

Marks are kept in the app's own folder; the audit is never changed.
"""

import io
import zipfile
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response

from mama_ray.auditing.exclusions import EXCLUDE_NAME, exclusions_to_csv
from mama_ray.auditing.table import read_audit
from mama_ray.orchestration.audit.corrected import CORRECTED_NAME, corrected_files
from mama_ray.orchestration.serving.marks import Mark, MarkStore
from mama_ray.orchestration.serving.pages import Pages
from mama_ray.orchestration.serving.state import AppState
from mama_ray.orchestration.serving.suspects import Shown, Suspects

_FOLDER = "weights"
_PER_PAGE = 24
Filter = Annotated[str | None, Query(max_length=500)]


def build_router(state: AppState, pages: Pages) -> APIRouter:
    """Return the routes of the page."""
    router = APIRouter(tags=["weights"])
    suspects, marks = _open(state)

    def found() -> Suspects:
        if suspects is None:
            raise HTTPException(404, state.missing["weights"])
        return suspects

    @router.get("/weights", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request) -> HTMLResponse:
        facets = {"sources": [], "topics": []} if suspects is None else suspects.facets
        return pages.render(request, "weights.html.j2", here="weights", facets=facets, has_audit=suspects is not None)

    @router.get("/api/weights/counts")
    def counts() -> dict[str, int]:
        """Return how many clips, suspects and marks there are."""
        return found().counts()

    @router.get("/api/weights/points")
    def points(shown: Shown = "all", source: Filter = None, topic: Filter = None) -> dict:
        """Return mean loss and mean weight of captions, at most some thousands of them."""
        return found().points(shown=shown, source=source, topic=topic)

    @router.get("/api/weights/pairs")
    def pairs(
        shown: Shown = "suspects",
        source: Filter = None,
        topic: Filter = None,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = _PER_PAGE,
    ) -> dict:
        """Return pairs of clip and caption, the least trusted first."""
        return found().pairs(shown=shown, source=source, topic=topic, offset=offset, limit=limit)

    _add_marks(router, found, marks)
    _add_exports(router, found)
    return router


def _add_marks(router: APIRouter, found: Callable[[], Suspects], marks: MarkStore | None) -> None:
    @router.post("/api/weights/marks")
    def mark(mark: Mark) -> dict[str, int]:
        """Write down what a person says of a caption; returns the counts after it."""
        if not found().has(mark.clip_id, mark.caption_id):
            raise HTTPException(404, "the audit has no such caption")
        if mark.mark == "rewrite" and not mark.text.strip():
            raise HTTPException(422, "a rewrite needs the better caption")
        assert marks is not None
        try:
            marks.add(mark)
        except OSError as error:
            raise HTTPException(507, f"the mark was not kept: {error.strerror or 'the disk refused it'}") from error
        return found().counts()


def _add_exports(router: APIRouter, found: Callable[[], Suspects]) -> None:
    @router.get(f"/api/weights/{EXCLUDE_NAME}", response_class=Response)
    def exclude(unmarked: bool = False) -> Response:
        """Return the list that data.exclude of the next training takes."""
        text = exclusions_to_csv(found().exclusions(with_unmarked=unmarked))
        return _download(text.encode(), EXCLUDE_NAME, "text/csv; charset=utf-8")

    @router.get(f"/api/weights/{CORRECTED_NAME}.zip", response_class=Response)
    def corrected(unmarked: bool = False) -> Response:
        """Return the caption table that data.caption_tables of the next training takes, as a folder in a zip."""
        rows = found().corrections(with_unmarked=unmarked)
        if not rows:
            raise HTTPException(409, "nothing is rewritten yet")
        return _download(_zipped(rows), f"{CORRECTED_NAME}.zip", "application/zip")


def _open(state: AppState) -> tuple[Suspects | None, MarkStore | None]:
    if state.audit_folder is None:
        return None, None
    marks = MarkStore(state.data_dir / _FOLDER)
    return Suspects(read_audit(state.audit_folder), marks), marks


def _zipped(rows: list[dict]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in corrected_files(rows, origin="by hand").items():
            archive.writestr(f"{CORRECTED_NAME}/{name}", content)
    return whole.getvalue()


def _download(content: bytes, name: str, kind: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(content, headers=headers, media_type=kind)
