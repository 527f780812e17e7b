"""A process of its own for native decoders, which may crash or never return on a hostile video.

The child (`inspection.py`) lives on from video to video, because a start takes half a second, and is replaced after a
crash or a hang, which is more CPU time than it may take: how long it waits for a disk or for a busy machine is no fault
of a video. It ends with its parent, even in the middle of a native call. Bytes of a video and pixels pass through files
in memory, which both sides hold open.
"""

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from mama_ray.data.video.child_watch import LOOK_S, ChildDied, Watch, ask_again, death_of
from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.memory_files import file_in_memory, path_of, write_whole
from mama_ray.data.video.settings import DecodeConfig, SceneConfig, TranscodeConfig, WindowConfig
from mama_ray.storage.failures import number_in

# Beyond the decoder's own limit, which is looked at between frames only: probing, cutting and the trial each have it.
_GRACE_S = 15
_STAGES = 3
_READ_STAGES = 2  # the index of its packets, and its frames
_START_S = 120  # a busy machine imports slowly
_ANSWER_BYTES = 1 << 16
READY = b"ready\n"


class VideoGuard:
    """Inspects videos in a child process. Not to be shared between threads."""

    def __init__(
        self,
        config: DecodeConfig | None = None,
        *,
        num_trial_frames: int = 4,
        window: WindowConfig | None = None,
        transcode: TranscodeConfig | None = None,
    ) -> None:
        self._config = config or DecodeConfig()
        self._window = window or WindowConfig()
        self._transcode = transcode if transcode is not None and transcode.is_on else None
        self._num_trial_frames = num_trial_frames
        self._child: subprocess.Popen | None = None
        self._windows_child: subprocess.Popen | None = None
        self._lifeline: IO[bytes] | None = None
        self._video, self._frames = file_in_memory("video"), file_in_memory("frames")

    def inspect(self, path: str, start_s: float, end_s: float | None, cut_to: str) -> dict:
        """Return `inspection.Inspector.inspect` of a local file or folder of chunks.

        Raises DecodeError with the reason when the video cannot be used, a crash or a hang of the decoder included, and
        OSError when the machine has no room for the cut, or its disks fail or stand still.
        """
        request = {
            **{"path": path, "start_s": start_s, "end_s": end_s, "num_trial_frames": self._num_trial_frames},
            **{"cut_to": cut_to, "window": self._window.model_dump()},
        }
        if self._transcode is None:
            return self._answer(request)
        limit_s = _STAGES * self._config.timeout_s + self._transcode.timeout_s
        return self._answer(request | {"transcode": self._transcode.model_dump()}, limit_s)

    def recode(self, path: str, cut_to: str) -> dict:
        """Write all of a local file as `SourceVideo.cut` does, whatever it is; returns and raises as `inspect` does."""
        request = {"path": path, "start_s": 0.0, "end_s": None, "num_trial_frames": 1, "cut_to": cut_to}
        return self._answer({**request, "always": True})

    def sampled_frames(
        self,
        data: bytes | str | Path,
        *,
        num_frames: int,
        size: Mapping[str, int],
        offsets: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Return `sampled.sampled_frames`. Raises DecodeError and OSError as `inspect` does."""
        return self._read(data, {"num_frames": num_frames, "size": dict(size), "offsets": offsets})[0]

    def located_frames(
        self, data: bytes | str | Path, *, num_frames: int, size: Mapping[str, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `sampled.located_frames`: uint8 (num_frames, height, width, 3), int64 and float64 (num_frames,).

        Raises likewise.
        """
        frames, facts = self._read(data, {"num_frames": num_frames, "size": dict(size), "is_located": True})
        return frames, np.array(facts["indices"], np.int64), np.array(facts["times_s"], np.float64)

    def spread_frames(
        self, data: bytes | str | Path, *, num_frames: int, fit: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `sampled.spread_frames`: uint8 (frames, height, width, 3), int64 (frames,). Raises likewise."""
        frames, facts = self._read(data, {"num_frames": num_frames, "fit": fit})
        return frames, np.array(facts["indices"], np.int64)

    def clip_frames(
        self, data: bytes | str | Path, *, num_clips: int, frames_per_clip: int, short_side: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """Return `sampled.clip_frames`. Raises likewise."""
        asked = {"num_clips": num_clips, "frames_per_clip": frames_per_clip, "short_side": short_side}
        frames, facts = self._read(data, asked)
        width, height = facts["shown_size"]
        return frames, np.array(facts["places"], np.int64), (width, height)

    def window_frames(
        self, data: bytes | str | Path, *, size: Mapping[str, int], **windows: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return `views.window_frames`. Raises likewise."""
        frames, facts = self._read(data, {**windows, "size": dict(size)})
        return frames, np.array(facts["places"], np.int64)

    def open_windows(self, path: str, windows: Sequence[tuple[float, float]], request: Mapping) -> dict:
        """Have the child open a local file for `next_window`, as `WindowReader` does; returns what it tells of it.

        Raises DecodeError and OSError as `inspect` does.
        """
        facts = self._answer({"path": path, "windows": list(windows), "asked": dict(request)})
        self._windows_child = self._child
        return facts

    def next_window(self) -> tuple[np.ndarray, dict]:
        """Return the frames of the next window, and what `inspection.Inspector.next_window` tells of them.

        Raises DecodeError for a window that cannot be read and OSError, as `inspect` does, and ChildDied: a new child
        has no windows open.
        """
        child = self._windows_child
        # Asking would start another in its place, which knows nothing of windows.
        if child is None or child is not self._child or child.poll() is not None:
            if child is None:
                raise ChildDied("no windows are open")
            self._reap(child)
            raise death_of(child)
        request = {"next_window": True, "frames_to": path_of(self._frames)}
        try:
            facts = self._answer_once(request, self._config.timeout_s)
            return self._pixels(facts), facts
        finally:
            self._frames.truncate(0)

    def find_scenes(self, path: str, scenes: SceneConfig) -> list[tuple[float, float | None]]:
        """Return `scenes.find_scenes` of a local file. Raises DecodeError and OSError as `inspect` does."""
        request = {"path": path, "scenes": scenes.model_dump()}
        found = self._answer(request, self._config.timeout_s + scenes.timeout_s)["scenes"]
        return [(start_s, end_s) for start_s, end_s in found]

    def _read(self, data: bytes | str | Path, request: dict) -> tuple[np.ndarray, dict]:
        """Return the frames that the child reads of a video, and the facts that it tells."""
        if isinstance(data, str | Path):
            path = str(Path(data).absolute())
        else:
            path = path_of(self._video)
            write_whole(self._video, data)
        try:
            request = {"path": path, "frames_to": path_of(self._frames), "asked": request}
            facts = self._answer(request, _READ_STAGES * self._config.timeout_s)
            return self._pixels(facts), facts
        finally:
            self._video.truncate(0)
            self._frames.truncate(0)

    def _pixels(self, facts: dict) -> np.ndarray:
        """Return the frames that the child wrote, in the shape that it tells."""
        self._frames.seek(0)
        return np.fromfile(self._frames, np.uint8).reshape(facts["shape"])

    def _answer(self, request: dict, limit_s: float | None = None) -> dict:
        """Return the facts that the child tells, asked again if it dies."""
        limit_s = _STAGES * self._config.timeout_s if limit_s is None else limit_s
        return ask_again(lambda: self._answer_once(request, limit_s))

    def _answer_once(self, request: dict, limit_s: float) -> dict:
        timeout_s = limit_s + _GRACE_S
        limits = {"config": self._config.model_dump(), "limit_s": timeout_s}
        answer = self._ask(request | limits, timeout_s)
        if "error" in answer:
            raise DecodeError(answer["error"])
        if "trouble" in answer:
            number = answer["errno"] or number_in(answer["trouble"]) or errno.EIO
            raise OSError(number, answer["trouble"], answer["file"])
        return answer["facts"]

    def close(self) -> None:
        """End the child; the guard is of no use any more."""
        self._end_child()
        self._video.close()
        self._frames.close()

    def _end_child(self) -> None:
        child, self._child = self._child, None
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            lifeline.close()
        if child is not None:
            child.kill()
            child.wait()
            for stream in _pipes_of(child):
                with contextlib.suppress(OSError):
                    stream.close()

    @property
    def process_id(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._child.pid if self._child else None

    def _ask(self, request: dict, timeout_s: float) -> dict:
        child = self._started()
        watch = Watch(child, timeout_s)
        try:
            to_child, _ = _pipes_of(child)
            to_child.write(json.dumps(request).encode() + b"\n")
            to_child.flush()
            line = self._read_line(child, watch)
        except TimeoutError as error:
            self._end_child()
            raise self._stood_still(request.get("path"), timeout_s) from error
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self._reap(child)
            if child.returncode == -signal.SIGPROF:
                raise DecodeError(f"decoding did not end within {timeout_s:.0f} s of CPU time")
            raise death_of(child, watch.peak_bytes)
        return json.loads(line)

    def _stood_still(self, path: str | None, timeout_s: float) -> Exception:
        what = f"the process that decodes stood still for {timeout_s:.0f} s"
        # decord waits for ever on some damaged videos; PyAV waits for nothing but the disk.
        return DecodeError(what) if self._config.reader == "decord" else OSError(errno.EIO, what, path)

    def _started(self) -> subprocess.Popen:
        if self._child is None or self._child.poll() is not None:
            self._end_child()
            memory_bytes = int(self._config.max_memory_gib * 2**30)
            # Its end that is ours closes when this process ends, however it does: nobody else holds it.
            their_end, our_end = os.pipe()
            self._lifeline = os.fdopen(our_end, "wb", buffering=0)
            command = [sys.executable, "-m", "mama_ray.data.video.inspection", str(memory_bytes), str(their_end)]
            # A job may have put this package on sys.path alone, which a child does not inherit.
            import_path = [str(Path(__file__).resolve().parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
            try:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                    process_group=0,  # Ctrl-C is for its parent alone: the lifeline ends it
                    pass_fds=(their_end, self._video.fileno(), self._frames.fileno()),
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(import_path)},
                )
            finally:
                os.close(their_end)
            # A child that cannot even import must not pass for a crash on some video: all of them would be refused.
            child = self._child
            if self._read_line(child, Watch(child, _START_S)) != READY:
                self._reap(child)
                raise RuntimeError(f"the decoding process cannot start: {death_of(child)}")
        return self._child

    def _read_line(self, child: subprocess.Popen, watch: Watch) -> bytes:
        """Return what the child writes, up to a line's end or its own. Raises TimeoutError where it stands still."""
        _, from_child = _pipes_of(child)
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([from_child], [], [], LOOK_S)[0]:
                watch.look()
                continue
            part = from_child.read(_ANSWER_BYTES)
            if not part:
                break
            line += part
        return line

    def _reap(self, child: subprocess.Popen) -> None:
        """Wait for a child that ends, and let go of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
        self._end_child()


def _pipes_of(child: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    """Return what the child reads and what it writes; it was started with both."""
    assert child.stdin is not None and child.stdout is not None
    return child.stdin, child.stdout
