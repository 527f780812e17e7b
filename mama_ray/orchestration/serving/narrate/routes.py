"""The pages "Narrate": send a video, see its windows as they are written, edit and keep them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.serving.narrate.api import add_changes, add_readings, add_uploads
from mama_ray.orchestration.serving.narrate.downloads import FORMATS
from mama_ray.orchestration.serving.narrate.events import describe
from mama_ray.orchestration.serving.narrate.jobs import NarrationQueue
from mama_ray.orchestration.serving.pages import Pages
from mama_ray.orchestration.serving.state import AppState

_FOLDER = "narrations"


def build_router(state: AppState, pages: Pages) -> APIRouter:
    """Return the routes of the pages and of what they ask for; the queue lives as long as the application."""
    (state.data_dir / _FOLDER).mkdir(parents=True, exist_ok=True)  # now, when what is refused can still be told well
    at_once = 0 if state.narrator is None else 1  # what was narrated earlier can be looked at without a narrator
    queue = NarrationQueue(
        state.data_dir / _FOLDER, narrate_job(state), at_once=at_once, max_waiting=state.job.max_jobs
    )

    @asynccontextmanager
    async def alive(app: FastAPI) -> AsyncIterator[None]:
        await queue.start()
        app.state.narrations = queue
        try:
            yield
        finally:
            await queue.close()

    router = APIRouter(tags=["narrate"], lifespan=alive)

    @router.get("/narrate", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request) -> HTMLResponse:
        max_bytes = state.job.max_upload_mib << 20
        return pages.render(request, "narrate.html.j2", here="narrate", max_bytes=max_bytes)

    @router.get("/narrate/{narration_id}", response_class=HTMLResponse, include_in_schema=False)
    def narration_page(request: Request, narration_id: str) -> HTMLResponse:
        narration = queue.find(narration_id)
        if narration is None:
            raise HTTPException(404, "no such narration")
        told = describe(queue, narration, 0)
        return pages.render(request, "narration.html.j2", here="narrate", narration=told, formats=list(FORMATS))

    add_uploads(router, queue, state)
    add_readings(router, queue, state)
    add_changes(router, queue, state)
    return router


def narrate_job(state: AppState) -> NarrateJob:
    """Return what every narration of the app is, but for its video."""
    job = NarrateJob(model=state.narrator)
    strict = state.job.decode
    limits = {"max_memory_gib": strict.max_memory_gib, "max_pixels": strict.max_pixels}
    return job.model_copy(update={"decode": job.decode.model_copy(update=limits)})
