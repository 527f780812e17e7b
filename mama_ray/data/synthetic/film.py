"""The clips of a split in one long video, one after the other, with the annotations that say what is when.

It is what a narrator of long videos is tried on: whoever made it knows what happens in each second. The same config
gives the same bytes.
"""

import io
import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mama_ray.data.synthetic.config import CorpusConfig, Split
from mama_ray.data.synthetic.generate import describe_clip, generate_clip
from mama_ray.storage.places import whole_file

FILM_NAME = "film.mp4"
ANNOTATIONS_NAME = "film.jsonl"
_GOP_S = 4
_OPTIONS = {"preset": "ultrafast", "crf": "16", "flags": "+bitexact"}  # those of the corpus's clips


def write_film(folder: Path, config: CorpusConfig, clips: Sequence[tuple[Split, int]]) -> Path:
    """Write `film.mp4`, H.264, and `film.jsonl` in the columns that prepare reads; returns the video's path.

    A film that is there is left as it is: the annotations are written last.
    """
    film, annotations = folder / FILM_NAME, folder / ANNOTATIONS_NAME
    if not annotations.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(film) as path:
            _encode(path, config, clips)
        rows = [_row(config, number, *clip) for number, clip in enumerate(clips)]
        with whole_file(annotations) as path:
            path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")
    return film


def _row(config: CorpusConfig, number: int, split: Split, clip: int) -> dict:
    described = describe_clip(config, split, clip)
    return {
        "video": FILM_NAME,
        "start_s": number * config.duration_s,
        "end_s": (number + 1) * config.duration_s,
        "captions": [{"text": caption.text, "source": caption.source} for caption in described.captions],
        "truth": described.truth,
    }


def _encode(path: Path, config: CorpusConfig, clips: Sequence[tuple[Split, int]]) -> None:
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream("libx264", rate=config.fps, options=_OPTIONS)
        stream.width = stream.height = config.image_size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, config.fps)
        stream.codec_context.thread_count = 1
        stream.gop_size = _GOP_S * config.fps
        for number, pixels in enumerate(_frames(config, clips)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, stream.codec_context.time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _frames(config: CorpusConfig, clips: Sequence[tuple[Split, int]]) -> Iterator[np.ndarray]:
    for clip in clips:
        with av.open(io.BytesIO(generate_clip(config, *clip).video)) as video:
            for frame in video.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
