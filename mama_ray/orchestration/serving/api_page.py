"""The page of the JSON interface, made of its OpenAPI description: FastAPI's own loads scripts from another host."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from mama_ray.orchestration.serving.pages import Pages
from mama_ray.orchestration.serving.state import AppState


def build_router(state: AppState, pages: Pages) -> APIRouter:
    """Return the route of /docs."""
    router = APIRouter()

    @router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request) -> HTMLResponse:
        groups: dict[str, list[dict]] = {}
        for path, methods in request.app.openapi()["paths"].items():
            for method, told in methods.items():
                text = (told.get("description") or told["summary"]).replace("`", "")
                entry = {"method": method.upper(), "path": path, "text": text}
                entry["parameters"] = [one["name"] for one in told.get("parameters", ()) if one["in"] != "path"]
                groups.setdefault((told.get("tags") or ["other"])[0], []).append(entry)
        return pages.render(request, "api.html.j2", here="api", groups=groups)

    return router
