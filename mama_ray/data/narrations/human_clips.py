"""The human clips of videos, out of a table of annotations: what windows are laid around, or upon."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from mama_ray.data.annotations import parse_annotation, read_annotations
from mama_ray.data.captions import is_nothing
from mama_ray.data.video.windows import Times, mean_alpha, windows_of_moments
from mama_ray.errors import UserError
from mama_ray.storage.places import Place

HumanTimes = Literal["clips", "moments"]
_FAR_S = 1e9  # past the end of any video


def read_human_clips(
    place: Place, video_ids: Iterable[str], times: HumanTimes, alpha_s: float | None
) -> dict[str, list[Times]]:
    """Return (start_s, end_s) of the human clips of these videos, an empty list for a video without any.

    A video is named by its path without the extension, or by the last part of that alone. times: "clips" have a start
    and an end; of "moments" start_s is when something was said, and EgoVLP's rule makes a clip of it. alpha_s: of that
    rule, None for the mean over the table's videos. Raises UserError for a table that cannot be used, a row of it that
    cannot be read, and a table that is about none of the videos.
    """
    found: dict[str, list[tuple[float, float | None]]] = defaultdict(list)
    for number, row in read_annotations(place, unknown_columns="ignore"):
        try:
            annotation = parse_annotation(row)
        except ValueError as error:
            raise UserError("a human clip cannot be read", got=f"{place}, row {number}: {error}") from error
        if times == "moments" and is_nothing(row.get("start_s")):
            raise UserError("a human narration has no moment", got=f"{place}, row {number}", wanted="its start_s")
        if times == "clips" and annotation.end_s is None and annotation.start_s > 0:
            got = f"{place}, row {number}: start_s {annotation.start_s:g} and no end_s"
            raise UserError(
                "a human clip has no end", got=got, remedy="say --human_times moments where these are moments"
            )
        found[annotation.video_id].append((annotation.start_s, annotation.end_s))
    names = _by_last_part(found)
    matched = {name: found.get(name, found.get(names.get(_last_part(name), ""), [])) for name in video_ids}
    if not any(matched.values()):
        raise UserError(
            "the human clips are of other videos",
            got=f"{place} with {', '.join(sorted(found)[:3])}",
            wanted=f"some of {', '.join(sorted(matched)[:3])}",
        )
    if times == "clips":
        return {name: [(start, _FAR_S if end is None else end) for start, end in own] for name, own in matched.items()}
    alpha_s = mean_alpha([start for start, _ in own] for own in found.values()) if alpha_s is None else alpha_s
    return {name: windows_of_moments([start for start, _ in own], alpha_s) for name, own in matched.items()}


def _by_last_part(names: Iterable[str]) -> dict[str, str]:
    """Return the names by their last parts, but for those that several share."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[_last_part(name)].append(name)
    return {last: own[0] for last, own in found.items() if len(own) == 1}


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
