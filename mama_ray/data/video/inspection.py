"""Can this video be used? Probe it, decode a few frames on trial and cut the clip out of it.

All of it runs native decoders on files nobody vouches for, so prepare calls `Inspector` through `guard.py`, in a
process that may die. Run as a program this module is that process: one JSON request per line on standard input, one
JSON answer per line on standard output.
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TextIO

import numpy as np

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.cut import SourceVideo
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.probe import probe_video
from mama_ray.data.video.sampled import sampled_frames
from mama_ray.data.video.sampling import sample_timestamps
from mama_ray.data.video.scenes import find_scenes
from mama_ray.data.video.settings import DecodeConfig, SceneConfig

# Ends that differ by less than this are the end of the video: annotations are rounded, and a cut costs an encode.
END_TOLERANCE_S = 0.05
_PARENT_POLL_S = 1.0
_TRIAL_SIZE = 32  # decoding costs the same, converting and scaling less


class Inspector:
    """Inspects videos one after the other; clips of one video in a row are cut out of one open file."""

    def __init__(self) -> None:
        self._source: SourceVideo | None = None
        self._identity: tuple | None = None

    def inspect(
        self,
        path: str,
        *,
        start_s: float,
        end_s: float | None,
        num_trial_frames: int,
        cut_to: str,
        config: DecodeConfig,
    ) -> dict:
        """Return the facts of the clip [start_s, end_s) of a local file: those of `VideoInfo`, `end_s` and `is_cut`.

        Where the clip is less than the whole video it is cut and written to `cut_to`, and the facts are those of the
        cut. Raises DecodeError with a readable reason.
        """
        source = self._open(path, config)
        info = source.info
        if start_s >= info.duration_s:
            limit = f"{info.duration_s:.3f} s"
            raise DecodeError("the clip starts after the end of the video", got=start_s, limit=limit)
        covers_all = start_s == 0 and (end_s is None or end_s >= info.duration_s - END_TOLERANCE_S)
        if covers_all:
            self.close()  # there is nothing else to cut out of it
            end_s = info.duration_s
        else:
            end_s = min(end_s or info.duration_s, info.duration_s)
            with open(cut_to, "wb") as file:
                file.write(source.cut(start_s, end_s))
            path, info = cut_to, probe_video(cut_to, config)
        decoder = VideoDecoder(path, width=_TRIAL_SIZE, height=_TRIAL_SIZE, config=config)
        decoder.frames_at(sample_timestamps(decoder.duration_s, num_trial_frames, start_s=decoder.start_s))
        return {**asdict(info), "end_s": end_s, "is_cut": not covers_all}

    def scenes(self, path: str, *, scenes: SceneConfig, config: DecodeConfig) -> dict:
        """Return {scenes: [(start_s, end_s or None), ...]} of a local file. Raises DecodeError."""
        return {"scenes": find_scenes(self._open(path, config), scenes)}

    def close(self) -> None:
        """Close the file that is kept open."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def _open(self, path: str, config: DecodeConfig) -> SourceVideo:
        facts = os.stat(path) if os.path.isfile(path) else None
        # Another video may have come to lie at the same place.
        identity = (path, facts and (facts.st_ino, facts.st_size, facts.st_mtime_ns), config)
        if self._source is None or self._identity != identity:
            self.close()
            self._source, self._identity = SourceVideo(path, config), identity
        return self._source


def write_frames(*, path: str, num_frames: int, size: dict[str, int], frames_to: str, config: DecodeConfig) -> dict:
    """Write the sampled frames of a local video into a .npy file; there are no facts to tell. Raises DecodeError."""
    with open(frames_to, "wb") as file:
        np.save(file, sampled_frames(path, num_frames=num_frames, size=size, decode=config), allow_pickle=False)
    return {}


def _facts_for(request: dict, inspector: Inspector) -> dict:
    if "frames_to" in request:
        return write_frames(**request)
    if "scenes" in request:
        scenes = SceneConfig.model_validate(request.pop("scenes"))
        return inspector.scenes(**request, scenes=scenes)
    return inspector.inspect(**request)


def serve(requests: Iterable[str], answers: TextIO) -> None:
    """Answer requests line by line until the input ends; `error` is the video's fault, `trouble` is ours."""
    inspector = Inspector()
    for line in requests:
        request = json.loads(line)
        # The default action of SIGALRM ends the process even inside a native loop, when nobody is left to kill it.
        signal.alarm(request.pop("alarm_s"))
        request["config"] = DecodeConfig.model_validate(request["config"])
        try:
            answer = {"facts": _facts_for(request, inspector)}
        except DecodeError as error:
            answer = {"error": str(error)}
        except MemoryError:
            answer = {"error": "decoding needs too much memory"}
        except (OSError, ImportError) as error:
            answer = {"trouble": str(error), "errno": getattr(error, "errno", None)}
        except Exception as error:  # a decoder binding's own surprise: the video's fault, and the next one may be fine
            answer = {"error": f"{type(error).__name__}: {error}"}
        signal.alarm(0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _end_with(parent: int) -> None:
    """End when whoever asks has gone: in the midst of a video nobody would see that the input has ended."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os._exit(1)


def main() -> None:
    """Serve on the standard streams. Argument: memory limit in bytes."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job, which then closes our input
    # Native libraries may print: what they write must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write("ready\n")
    answers.flush()
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
