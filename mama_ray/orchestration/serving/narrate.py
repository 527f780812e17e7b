"""The page "Narrate"."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from mama_ray.orchestration.serving.pages import Pages
from mama_ray.orchestration.serving.state import AppState


def build_router(state: AppState, pages: Pages) -> APIRouter:
    """Return the routes of the page."""
    router = APIRouter(tags=["narrate"])

    @router.get("/narrate", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request) -> HTMLResponse:
        return pages.render(request, "narrate.html.j2", here="narrate")

    return router
