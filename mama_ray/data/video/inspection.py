"""Can this video be used? Probe it, decode a few frames on trial and cut the clip out of it.

All of it runs native decoders on files nobody vouches for, so prepare calls `inspect_video` through `guard.py`, in a
process that may die. Run as a program this module is that process: one JSON request per line on standard input, one
JSON answer per line on standard output.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TextIO

import numpy as np

from mama_ray.data.video.container import DecodeError
from mama_ray.data.video.cut import cut_clip
from mama_ray.data.video.decode import VideoDecoder
from mama_ray.data.video.probe import probe_video
from mama_ray.data.video.sampled import sampled_frames
from mama_ray.data.video.sampling import sample_timestamps
from mama_ray.data.video.settings import DecodeConfig

# Ends that differ by less than this are the end of the video: annotations are rounded, and a cut costs an encode.
END_TOLERANCE_S = 0.05
_TRIAL_SIZE = 32  # decoding costs the same, converting and scaling less


def inspect_video(
    path: str, *, start_s: float, end_s: float | None, num_trial_frames: int, cut_to: str, config: DecodeConfig
) -> dict:
    """Return the facts of the clip [start_s, end_s) of a local video file: those of `VideoInfo`, `end_s` and `is_cut`.

    Where the clip is less than the whole video it is cut and written to `cut_to`, and the facts are those of the cut.
    Raises DecodeError with a readable reason.
    """
    info = probe_video(path, config)
    if start_s >= info.duration_s:
        raise DecodeError("the clip starts after the end of the video", got=start_s, limit=f"{info.duration_s:.3f} s")
    covers_all = start_s == 0 and (end_s is None or end_s >= info.duration_s - END_TOLERANCE_S)
    if not covers_all:
        end_s = min(end_s or info.duration_s, info.duration_s)
        with open(cut_to, "wb") as file:
            file.write(cut_clip(path, start_s, end_s, config))
        path, info = cut_to, probe_video(cut_to, config)
    decoder = VideoDecoder(path, width=_TRIAL_SIZE, height=_TRIAL_SIZE, config=config)
    decoder.frames_at(sample_timestamps(decoder.duration_s, num_trial_frames))
    return {**asdict(info), "end_s": start_s + info.duration_s if covers_all else end_s, "is_cut": not covers_all}


def write_frames(*, path: str, num_frames: int, size: dict[str, int], frames_to: str, config: DecodeConfig) -> dict:
    """Write the sampled frames of a local video into a .npy file; there are no facts to tell. Raises DecodeError."""
    with open(frames_to, "wb") as file:
        np.save(file, sampled_frames(path, num_frames=num_frames, size=size, decode=config), allow_pickle=False)
    return {}


def serve(requests: Iterable[str], answers: TextIO) -> None:
    """Answer requests line by line until the input ends; `error` is the video's fault, `trouble` is ours."""
    for line in requests:
        request = json.loads(line)
        # The default action of SIGALRM ends the process even inside a native loop, when nobody is left to kill it.
        signal.alarm(request.pop("alarm_s"))
        request["config"] = DecodeConfig.model_validate(request["config"])
        try:
            answer = {"facts": write_frames(**request) if "frames_to" in request else inspect_video(**request)}
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


def main() -> None:
    """Serve on the standard streams. Argument: memory limit in bytes."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job, which then closes our input
    # Native libraries may print: what they write must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write("ready\n")
    answers.flush()
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
