"""Can this video be used? Probe it, decode a few frames on trial and cut the clip out of it.

All of it runs native decoders on files nobody vouches for, so prepare calls `Inspector` through `guard.py`, in a
process that may die. Run as a program this module is that process: one JSON request per line on standard input, one
JSON answer per line on standard output.
"""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TextIO

import numpy as np

from mama_ray.data.video.chunked import ChunkedVideo
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.cut import END_TOLERANCE_S, SourceVideo
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.probe import probe_video
from mama_ray.data.video.sampled import clip_frames, located_frames, sampled_frames, spread_frames
from mama_ray.data.video.sampling import sample_timestamps
from mama_ray.data.video.scenes import find_scenes
from mama_ray.data.video.settings import DecodeConfig, SceneConfig, TranscodeConfig, WindowConfig
from mama_ray.data.video.transcode import make_smaller
from mama_ray.data.video.views import window_frames
from mama_ray.data.video.window_reader import WindowReader, WindowRequest
from mama_ray.storage.failures import NO_SPACE, as_storage_error

# What the decoder's libraries map when they open their first video, and a small one's frames.
_LEAST_ROOM = 64 << 20
_TRIAL_SIZE = 32  # decoding costs the same, converting and scaling less


class Inspector:
    """Inspects videos one after the other; clips of one video in a row are cut out of one open file."""

    def __init__(self) -> None:
        self._source: SourceVideo | ChunkedVideo | None = None
        self._identity: tuple | None = None
        self._windows: WindowReader | None = None

    def inspect(
        self,
        path: str,
        *,
        start_s: float,
        end_s: float | None,
        num_trial_frames: int,
        cut_to: str,
        config: DecodeConfig,
        window: WindowConfig | None = None,
        always: bool = False,
        transcode: TranscodeConfig | None = None,
    ) -> dict:
        """Return the facts of the clip [start_s, end_s) of a local file or folder of chunks: those of `VideoInfo`,
        `end_s`, `is_cut`, and `is_clamped` where the video ends before the clip.

        Where the clip is less than the whole file, or `always`, it is cut and written to `cut_to`, and the facts are
        those of the cut. With `transcode` that is then made smaller, as `make_smaller` says. Raises DecodeError with a
        readable reason.
        """
        source = self._open(path, config, window or WindowConfig())
        asked_s, end_s = end_s, source.end_of(start_s, end_s)
        covers_all = not always and source.covers(start_s, end_s)
        if covers_all:
            info = source.info
            self.close()  # there is nothing else to cut out of it
            end_s = info.duration_s
        else:
            with open(cut_to, "wb") as file:
                file.write(source.cut(start_s, end_s))
            path, info = cut_to, probe_video(cut_to, config)
        facts = {**asdict(info), "is_cut": not covers_all}
        if transcode is not None:
            num_frames = info.num_frames if covers_all else source.num_frames_in(start_s, end_s)
            facts |= make_smaller(path, cut_to, transcode, config, num_missing=num_frames - info.num_frames)
        _try_reading(cut_to if facts["is_cut"] else path, num_trial_frames, config)
        is_clamped = asked_s is not None and asked_s > end_s + END_TOLERANCE_S
        return {**facts, "end_s": end_s, "is_clamped": is_clamped}

    def scenes(self, path: str, *, scenes: SceneConfig, config: DecodeConfig) -> dict:
        """Return {scenes: [(start_s, end_s or None), ...]} of a local file. Raises DecodeError."""
        return {"scenes": find_scenes(self._open(path, config, WindowConfig()), scenes)}

    def open_windows(self, path: str, *, windows: list, asked: dict, config: DecodeConfig) -> dict:
        """Open a local file for `next_window`; returns {duration_s, num_frames}. Raises DecodeError."""
        self.close_windows()
        times = [(float(start_s), float(end_s)) for start_s, end_s in windows]
        self._windows = WindowReader(path, times, WindowRequest(**asked), config)
        return {"num_frames": self._windows.num_frames, "duration_s": self._windows.duration_s}

    def next_window(self, frames_to: str) -> dict:
        """Write the pixels of the next window, and tell their shape, what `FramesOfWindow` says of them and how many
        frames have left the decoder so far. Raises DecodeError.
        """
        reader = self._windows
        if reader is None:
            raise ValueError("no windows are open")
        found = reader.read()
        facts = {"indices": found.indices.tolist(), "times_s": found.times_s.tolist()}
        facts |= _write_pixels(found.frames, frames_to)
        return facts | {"num_replaced": found.num_replaced, "num_decoded": reader.num_decoded}

    def close_windows(self) -> None:
        """Close the file whose windows are read."""
        reader, self._windows = self._windows, None
        if reader is not None:
            reader.close()

    def close(self) -> None:
        """Close the file that is kept open."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def close_all(self) -> None:
        """Close every file."""
        self.close()
        self.close_windows()

    def _open(self, path: str, config: DecodeConfig, window: WindowConfig) -> SourceVideo | ChunkedVideo:
        # Another video may have come to lie at the same place.
        identity = (path, _facts_of_files(path), config, window)
        if self._source is None or self._identity != identity:
            self.close()
            is_one_file = window.fps is None and not os.path.isdir(path)
            source = SourceVideo(path, config) if is_one_file else ChunkedVideo(path, config, window)
            self._source, self._identity = source, identity
        return self._source


def _facts_of_files(path: str) -> list[tuple]:
    paths = sorted(entry.path for entry in os.scandir(path)) if os.path.isdir(path) else [path]
    found = [(name, os.stat(name)) for name in paths if os.path.isfile(name)]
    return [(name, facts.st_ino, facts.st_size, facts.st_mtime_ns) for name, facts in found]


def _try_reading(path: str, num_frames: int, config: DecodeConfig) -> None:
    """Read a clip as every epoch will. Raises DecodeError where that fails, or costs too much."""
    began_s, limit_s = time.process_time(), config.max_frame_s * num_frames  # of the CPU: others may be at work, too
    decoder = VideoDecoder(path, width=_TRIAL_SIZE, height=_TRIAL_SIZE, config=config)
    decoder.frames_at(sample_timestamps(decoder.duration_s, num_frames, start_s=decoder.start_s))
    took_s = time.process_time() - began_s
    if took_s > limit_s:
        got, limit = f"{took_s:.1f} s for {num_frames} frames", f"{limit_s:g} s"
        raise DecodeError("the clip takes too long to decode", got=got, limit=limit)


def write_frames(*, path: str, asked: dict, frames_to: str, config: DecodeConfig) -> dict:
    """Write the pixels of the frames that are asked of a local video, and tell their shape, and their numbers where it
    is not their moments that were asked for. Raises DecodeError.
    """
    if "num_clips" in asked:
        frames, places, shown_size = clip_frames(path, decode=config, **asked)
        facts = {"places": places.tolist(), "shown_size": shown_size}
    elif "num_windows" in asked:
        frames, places = window_frames(path, decode=config, **asked)
        facts = {"places": places.tolist()}
    elif "fit" in asked:
        frames, indices = spread_frames(path, decode=config, **asked)
        facts = {"indices": indices.tolist()}
    elif asked.pop("is_located", False):
        frames, indices, times_s = located_frames(path, decode=config, **asked)
        facts = {"indices": indices.tolist(), "times_s": times_s.tolist()}
    else:
        frames, facts = sampled_frames(path, decode=config, **asked), {}
    return facts | _write_pixels(frames, frames_to)


def _write_pixels(frames: np.ndarray, path: str) -> dict:
    with open(path, "wb") as file:
        file.write(np.ascontiguousarray(frames).data)
    return {"shape": frames.shape}


def _facts_for(request: dict, inspector: Inspector) -> dict:
    if "next_window" in request:
        return inspector.next_window(request["frames_to"])
    if "windows" in request:
        return inspector.open_windows(**request)
    if "frames_to" in request:
        return write_frames(**request)
    if "scenes" in request:
        scenes = SceneConfig.model_validate(request.pop("scenes"))
        return inspector.scenes(**request, scenes=scenes)
    window = WindowConfig.model_validate(request.pop("window", {}))
    asked = request.pop("transcode", None)
    transcode = None if asked is None else TranscodeConfig.model_validate(asked)
    return inspector.inspect(**request, window=window, transcode=transcode)


def serve(requests: Iterable[str], answers: TextIO, *, has_room: bool = True) -> None:
    """Answer requests line by line until the input ends; `error` is the video's fault, `trouble` is ours: also what
    becomes of any video where there never was room for one."""
    inspector = Inspector()
    for line in requests:
        request = json.loads(line)
        # The default action of SIGPROF ends the process even inside a native loop.
        signal.setitimer(signal.ITIMER_PROF, request.pop("limit_s"))
        request["config"] = DecodeConfig.model_validate(request["config"])
        try:
            if not has_room:
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            answer = {"facts": _facts_for(request, inspector)}
        except DecodeError as error:
            answer = {"error": str(error)}
        except MemoryError:
            answer = {"error": "decoding needs too much memory"}
        except ImportError as error:
            answer = {"trouble": str(error), "errno": None, "file": None}
        except OSError as error:
            with contextlib.suppress(OSError):
                inspector.close_all()  # a disk that is back is read by files opened anew
            failure = as_storage_error(error) or error
            # What has no room says not for which file: only the cut and the frames are written.
            written = request.get("cut_to") or request.get("frames_to") if failure.errno in NO_SPACE else None
            answer = {
                "trouble": failure.strerror or str(failure),
                "errno": failure.errno,
                "file": failure.filename or written,
            }
        except Exception as error:  # a decoder binding's own surprise: the video's fault, and the next one may be fine
            answer = {"error": f"{type(error).__name__}: {error}"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _has_room() -> bool:
    try:
        mmap.mmap(-1, _LEAST_ROOM).close()
    except OSError:
        return False
    return True


def _end_with_parent(lifeline: int) -> None:
    """Have the kernel end this process when the other end of a pipe is closed.

    Unlike the end of standard input this works in the middle of a native call; unlike PR_SET_PDEATHSIG it does not
    take the end of the thread that started us for the end of the process.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # closed before we listened
        sys.exit(1)


def main() -> None:
    """Serve on the standard streams. Arguments: memory limit in bytes, the pipe whose other end the parent holds."""
    limit, lifeline = map(int, sys.argv[1:])
    _end_with_parent(lifeline)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job, which then closes our input
    # Native libraries may print: what they write must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write("ready\n")
    answers.flush()
    # Looked at once, before any video could take it: a library that finds none tells it now as a fault of the video.
    serve(sys.stdin, answers, has_room=_has_room())


if __name__ == "__main__":
    main()
