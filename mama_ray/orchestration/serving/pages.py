"""How a page of the app is made: templates around one base, one style sheet, scripts of our own.

Autoescaping is on and nothing is inlined, so that the content security policy need not allow it. The style sheet is
that of the report pages with what the app adds.
"""

import hashlib
from importlib.resources import files
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from mama_ray.reporting.document import format_duration
from mama_ray.reporting.timeline_page import clock

_PACKAGE = "mama_ray.orchestration.serving"
_FOLDER = "page"
_NAVIGATION = (("search", "/", "Search"), ("narrate", "/narrate", "Narrate"), ("weights", "/weights", "Weights"))
_STYLES = ("style.css", "narrate.css")  # of the app and of its pages, one after the other
_KINDS = {"js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


class Pages:
    """Renders the templates of `page/`, and serves its scripts and the style sheet by their names."""

    def __init__(self, missing: dict[str, str] | None = None) -> None:
        """missing: of `AppState`; a page says by it what it lacks."""
        self._files = _read_files()
        versions = {name: hashlib.sha256(content).hexdigest()[:12] for name, (content, _) in self._files.items()}
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader(_PACKAGE, _FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._shared: dict[str, Any] = {
            "navigation": _NAVIGATION,
            "missing": missing or {},
            "clock": clock,
            "duration": format_duration,
        }
        self._shared["static"] = lambda name: f"/static/{name}?v={versions[name]}"

    def render(self, request: Request, name: str, *, status: int = 200, here: str = "", **values: Any) -> HTMLResponse:
        """Return a page. `here` names its entry of the navigation; a value that a template lacks is an error."""
        text = self._environment.get_template(name).render(**self._shared, here=here, status=status, **values)
        return HTMLResponse(text, status, {"cache-control": "no-store"})

    def static_file(self, name: str) -> Response | None:
        """Return a script or the style sheet; None for any other name."""
        if name not in self._files:
            return None
        content, kind = self._files[name]
        return Response(content, headers={"cache-control": "max-age=31536000, immutable"}, media_type=kind)


def _read_files() -> dict[str, tuple[bytes, str]]:
    """Read what a browser may ask for, once: no path of a request ever reaches a file system."""
    folder = files(_PACKAGE).joinpath(_FOLDER)
    found = {}
    for file in folder.iterdir():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            found[file.name] = file.read_bytes(), kind
    style = files("mama_ray.reporting").joinpath("templates/document.css").read_bytes()
    for name in _STYLES:
        style += folder.joinpath(name).read_bytes()
    found["app.css"] = style, "text/css; charset=utf-8"
    return found
