"""What every page shares: the template around it, its figures, and how it is written.

Everything is inlined, autoescaping is on, and a page loads nothing from anywhere: its content security policy says so
to the browser as well.
"""

import math
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

PAGE_NAME = "index.html"


@dataclass(frozen=True)
class Figure:
    """A plot with its heading and its legend: (name, CSS colour, is dashed)."""

    title: str
    svg: Markup
    note: str = ""
    legend: tuple[tuple[str, str, bool], ...] = ()
    is_wide: bool = False


def render_template(name: str, *, package: str = "mama_ray.reporting", **values: Any) -> str:
    """Return a template as text; a value that it uses and does not get is an error.

    package: whose `templates` folder holds it; it may extend and include those of this package.
    """
    packages = dict.fromkeys((package, "mama_ray.reporting"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(one, "templates") for one in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)


def format_duration(seconds: float) -> str:
    """Return such as '48 s', '2 min 05 s', '3 h 07 min'."""
    if not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
