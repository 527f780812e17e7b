"""The page of a narrated video: a player, a time line to press on, and what is said, to be searched.

It opens without a server. Its one script is inlined and named by its hash in the page's policy, so that no text of a
caption can ever run; the video stays where it is, and the page knows its address alone.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from markupsafe import Markup

from mama_ray.reporting.document import PAGE_NAME, format_duration, render_template
from mama_ray.storage.places import Place


@dataclass(frozen=True)
class TimelineLine:
    """What is said of [start_s, end_s), the likeliest first, or why nothing is."""

    start_s: float
    end_s: float
    texts: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class TimelinePage:
    """One video's narration.

    Attributes:
        title: the video's name.
        duration_s: of the video.
        lines: in the order of their starts.
        video_src: address of the video as the page names it; None where a browser cannot get there.
        num_left: windows that are not narrated yet.
        facts: short pairs under the title.
        links: files beside the page, by what they are called.
    """

    title: str
    duration_s: float
    lines: Sequence[TimelineLine]
    video_src: str | None = None
    num_left: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NarratedVideo:
    """A line of the page over all videos; `page` is its folder, None where there is nothing of it."""

    name: str
    duration_s: float | None
    num_windows: int
    num_done: int
    page: str | None
    error: str | None = None


def render_timeline_page(page: TimelinePage) -> str:
    """Return the page as HTML text."""
    script = files("mama_ray.reporting").joinpath("templates/timeline.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render_template(
        "timeline.html.j2",
        title=page.title,
        kind="narration",
        lead="",
        facts=page.facts,
        is_single=False,
        page=page,
        clock=clock,
        script=Markup(script),
        script_hash=digest,
    )


def write_timeline_page(folder: Place, page: TimelinePage) -> str:
    """Write `<folder>/index.html` whole or not at all and return its URI."""
    place = folder / PAGE_NAME
    place.write_whole(render_timeline_page(page))
    return place.uri


def write_videos_page(folder: Place, videos: Sequence[NarratedVideo], facts: Mapping[str, str]) -> str:
    """Write the page that leads to those of several videos, and return its URI."""
    text = render_template(
        "narrated_videos.html.j2",
        title="Narrated videos",
        kind="narration",
        lead="",
        facts=facts,
        is_single=False,
        videos=videos,
        duration=format_duration,
    )
    place = folder / PAGE_NAME
    place.write_whole(text)
    return place.uri


def clock(seconds: float) -> str:
    """Return such as 3:07 or 1:02:45, as players show it."""
    whole = int(seconds)
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes.removeprefix("0")
