"""The application: every page and route of the app around one state, behind one doorkeeper.

A router is made by `build_router(state, pages)` of its module and checks nothing of who asks: that is done before it.
"""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mama_ray.errors import UserError
from mama_ray.masking import mask_text
from mama_ray.orchestration.serving import api_page, clips, mcp, search_page, weights
from mama_ray.orchestration.serving.narrate import routes as narrate
from mama_ray.orchestration.serving.pages import Pages
from mama_ray.orchestration.serving.security import PROTECTING_HEADERS, Doorkeeper
from mama_ray.orchestration.serving.state import AppState
from mama_ray.storage.failures import StorageError
from mama_ray.version import installed_version

logger = logging.getLogger(__name__)

UPLOAD_PATHS = ("/api/uploads", "/api/search/example")
"""Beginnings of the paths that take bodies of up to max_upload_mib; every other body is small."""

_ROUTERS = (search_page, clips, narrate, weights, mcp, api_page)  # mcp's starts after search_page's and narrate's


def create_app(state: AppState) -> FastAPI:
    """Return the application over a state."""
    pages = Pages(state.missing)
    app = FastAPI(
        title="mama_ray",
        version=installed_version(),
        description="Search a corpus, narrate videos, and see what the weights say.",
        docs_url=None,  # FastAPI's own page loads scripts from another host
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.app = state
    for module in _ROUTERS:
        app.include_router(module.build_router(state, pages))
    _add_static(app, pages)
    _add_errors(app, pages)
    app.add_middleware(
        Doorkeeper,
        pages=pages,
        token=state.token,
        hosts=[*state.job.hosts, state.job.host],
        max_upload_bytes=state.job.max_upload_mib << 20,
        upload_paths=UPLOAD_PATHS,
        max_clients=state.job.max_clients,
    )
    return app


def _add_static(app: FastAPI, pages: Pages) -> None:
    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        return pages.static_file(name) or JSONResponse({"detail": "no such file"}, 404)

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return pages.static_file("icon.svg") or Response(status_code=404)


def _add_errors(app: FastAPI, pages: Pages) -> None:
    """Answer errors as a page to who asked for one, else as JSON; no answer tells more than one line."""

    def answer(request: Request, status: int, reason: str, headers: dict | None = None) -> Response:
        if "text/html" in request.headers.get("accept", "") and not request.scope["path"].startswith("/api/"):
            page = pages.render(request, "error.html.j2", status=status, reason=reason)
            page.headers.update(headers or {})
            return page
        return JSONResponse({"detail": reason}, status, headers)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return answer(request, error.status_code, mask_text(str(error.detail)), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        told = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()[:3])
        return answer(request, 422, mask_text(told))

    @app.exception_handler(UserError)
    async def told(request: Request, error: UserError) -> Response:
        return answer(request, 503 if isinstance(error, StorageError) else 400, str(error))

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # to nobody: a browser that was closed is no fault of the app's

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        reason = "something went wrong here; the log of the app says what"
        return answer(request, 500, reason, PROTECTING_HEADERS)  # it is sent past the doorkeeper
