"""The scenes of a long video: from one change of the picture to the next, found by PySceneDetect."""

from collections.abc import Iterable
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

from av.video.reformatter import VideoReformatter

from mama_ray.data.video.chunked import ChunkedVideo
from mama_ray.data.video.container import Deadline, DecodeError
from mama_ray.data.video.cut import SourceVideo
from mama_ray.data.video.settings import SceneConfig

if TYPE_CHECKING:
    from scenedetect.detector import SceneDetector

_LONG_SIDE = 256  # the detectors tell cuts as well on small frames, and their cost goes with the pixels
_CLOSE_S = 1e-6


def find_scenes(source: SourceVideo | ChunkedVideo, config: SceneConfig) -> list[tuple[float, float | None]]:
    """Return (start_s, end_s) of the scenes of a video, one after the other, from the container's time 0.

    A scene that is shorter than `min_s` is left out, one that is longer than `max_s` comes in equal parts. A video that
    is one scene is (0, None), the whole of it, however short. Raises DecodeError where none of several is long enough.
    """
    duration_s = source.info.duration_s
    times = [0.0, *_changes(source, config), duration_s]
    if len(times) == 2 and duration_s <= config.max_s:
        return [(0.0, None)]
    scenes = [(start, end) for start, end in pairwise(times) if end - start >= config.min_s - _CLOSE_S]
    if not scenes:
        raise DecodeError("no scene is long enough", got=f"{len(times) - 1} scenes", limit=f"{config.min_s:g} s")
    return [part for scene in scenes for part in _equal_parts(*scene, config.max_s)]


def _changes(source: SourceVideo | ChunkedVideo, config: SceneConfig) -> Iterable[float]:
    """Yield when the first frame of each scene after the first one is shown."""
    from scenedetect.common import FrameTimecode  # with OpenCV: nobody else needs it

    # Counted in frames: the rate of the frames may vary, and the lengths of scenes are looked at here.
    detector, scaler, timestamps_s = _detector(config), VideoReformatter(), []
    width, height = _small_size(source.info.width, source.info.height)
    for number, (timestamp_s, frame) in enumerate(source.frames(Deadline.after(config.timeout_s))):
        timestamps_s.append(timestamp_s)
        picture = scaler.reformat(frame, format="bgr24", width=width, height=height, interpolation="AREA", threads=1)
        for cut in detector.process_frame(FrameTimecode(number, fps=1.0), picture.to_ndarray()):
            yield timestamps_s[cut.frame_num]


def _detector(config: SceneConfig) -> "SceneDetector":
    from scenedetect.detectors import AdaptiveDetector, ContentDetector

    kind = AdaptiveDetector if config.detector == "adaptive" else ContentDetector
    threshold = () if config.threshold is None else (config.threshold,)  # the first argument of both
    return kind(*threshold, min_scene_len=0)


def _small_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _LONG_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _equal_parts(start_s: float, end_s: float, max_s: float) -> Iterable[tuple[float, float]]:
    num_parts = ceil((end_s - start_s) / max_s - _CLOSE_S)
    bounds = [start_s + (end_s - start_s) * number / num_parts for number in range(num_parts)]
    return pairwise([*bounds, end_s])
