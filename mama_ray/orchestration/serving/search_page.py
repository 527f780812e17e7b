"""The page "Search" and a clip's own page, with the routes below /api/search."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

from mama_ray.orchestration.serving.clips import clip_facts
from mama_ray.orchestration.serving.examples import Examples
from mama_ray.orchestration.serving.pages import Pages
from mama_ray.orchestration.serving.previews import plays_in_browsers
from mama_ray.orchestration.serving.searching import Searcher, SearchRequest, shown_caption
from mama_ray.orchestration.serving.state import AppState
from mama_ray.orchestration.serving.uploads import NoRoom, TooLarge, told_length


def build_router(state: AppState, pages: Pages) -> APIRouter:
    """Return the routes of both pages and of searches."""
    examples = Examples(state.data_dir / "examples", state.towers)
    searcher = Searcher(state, examples)

    @asynccontextmanager
    async def alive(app: FastAPI) -> AsyncIterator[None]:
        app.state.searcher = searcher  # for others that search
        yield

    router = APIRouter(tags=["search"], lifespan=alive)
    _add_pages(router, state, pages, searcher)
    _add_routes(router, state, searcher, examples)
    return router


def _add_pages(router: APIRouter, state: AppState, pages: Pages, searcher: Searcher) -> None:
    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    def search_page(request: Request) -> HTMLResponse:
        facets, sizes = searcher.filters.facets, (len(state.catalog), searcher.num_found)
        return pages.render(request, "search.html.j2", here="search", facets=facets, sizes=sizes)

    @router.get("/clips/{clip_id}", response_class=HTMLResponse, include_in_schema=False)
    def clip_page(clip_id: str, request: Request) -> HTMLResponse:
        record = state.catalog.record(clip_id)
        if record is None:
            raise HTTPException(404, "The corpus has no clip of this id.")
        line = shown_caption(record.captions)
        similarities = searcher.similarities(record)
        return pages.render(
            request,
            "clip.html.j2",
            here="search",
            clip=record,
            title=line.text if line else record.clip_id,
            plays=plays_in_browsers(record),
            lines=sorted(
                zip(record.captions, similarities, strict=True), key=lambda one: -2 if one[1] is None else -one[1]
            ),
            has_similarity=any(value is not None for value in similarities),
            neighbours=searcher.neighbours(clip_id),
        )


def _add_routes(router: APIRouter, state: AppState, searcher: Searcher, examples: Examples) -> None:
    @router.post("/api/search")
    def search(asked: SearchRequest) -> dict:
        """Return the clips that fit words and examples best, with their captions."""
        return searcher.search(asked)

    @router.get("/api/search/filters")
    def filters() -> dict:
        """Return what can be filtered on, and how many clips each choice has."""
        return searcher.filters.facets

    @router.post("/api/search/example")
    async def example(request: Request) -> dict:
        """Take a video, as the body of the request, as an example; returns its name for `like` and `unlike`."""
        sent = {"max_bytes": state.job.max_upload_mib << 20, "expected_bytes": told_length(request.headers)}
        try:
            return {"name": await examples.add(request.stream(), **sent)}
        except (TooLarge, NoRoom) as error:
            status = 413 if isinstance(error, TooLarge) else 507
            raise HTTPException(status, str(error), {"connection": "close"}) from error

    @router.get("/api/clips/{clip_id}/similarities")
    def similarities(clip_id: str) -> dict:
        """Return a clip's captions with the similarity of each to its pixels, and the clips most like it."""
        record = state.catalog.record(clip_id)
        if record is None:
            raise HTTPException(404, "no such clip")
        values = searcher.similarities(record)
        captions = [
            {**facts, "similarity": value} for facts, value in zip(clip_facts(record)["captions"], values, strict=True)
        ]
        return {"captions": captions, "neighbours": searcher.neighbours(clip_id)}
