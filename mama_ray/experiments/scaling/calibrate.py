"""Measures on this machine what the simulation is fed with: seconds, bytes and requests per unit of work.

Every figure comes from the package's own functions; what an engine on a GPU does is measured nowhere here.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pyarrow as pa
import ray

from mama_ray.captioning.engines.generation import SamplingConfig
from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.pictures.grid import hash_pixels
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.captioning.postprocess import PostprocessConfig
from mama_ray.captioning.quality import QualityConfig
from mama_ray.captioning.table import file_name
from mama_ray.data.index import INDEX_NAME, INDEX_SCHEMA, MEMORY_SCHEMA, write_index
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.settings import DecodeConfig, TranscodeConfig
from mama_ray.data.video.transcode import transcode
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.experiments.scaling.control import measure_control_plane, start_ray, workers_cpu_s
from mama_ray.experiments.scaling.storage_requests import measure_storage
from mama_ray.experiments.scaling.videos import SIZES, TRANSCODED, encode_clip
from mama_ray.orchestration.captioning.committed import num_files
from mama_ray.orchestration.captioning.copies import shared_captions
from mama_ray.orchestration.captioning.finish import Gate, write_files
from mama_ray.orchestration.captioning.parts import (
    PART_SCHEMA,
    chunk_clips_of,
    committed_rows,
    iterate_parts,
    write_parts,
)
from mama_ray.storage.places import Place

_LLAVA_SIDE = 336
_VIDEOS_PER_SIZE = 3
_TABLE_CLIPS = 8192
_CHUNK_CLIPS = chunk_clips_of(100_000_000)
_TRANSCODED_SIDE = 256
_SENTENCE = "a person in blue opens the old door and walks slowly across wet street while two dogs run"


def calibrate() -> dict:
    """Return everything that is measured; takes about three minutes on two cores."""
    videos, transcode_s = make_videos()
    result = {"machine": {"cores": os.cpu_count(), "processor": _processor()}}
    result["decode"] = {size: measure_decoding(own) for size, own in videos.items()}
    result["transcode"] = {"cpu_s_per_clip": transcode_s}
    with tempfile.TemporaryDirectory() as folder:
        part = part_table(0, _CHUNK_CLIPS)
        result["storage"] = measure_storage(Path(folder) / "shards", videos, part, _CHUNK_CLIPS)
        result["table"] = measure_table(Path(folder))
    result["engine"] = {"llava_processor_s_per_clip": measure_llava_processor()}
    result["control"] = measure_control_plane()
    return result


def make_videos() -> tuple[dict[str, list[bytes]], float]:
    """Return clips by size, those that prepare makes of 720p ones among them, and what making one of these takes."""
    videos = {size: [encode_clip(size, seed) for seed in range(_VIDEOS_PER_SIZE)] for size in SIZES}
    made, config = {}, TranscodeConfig(short_side=_TRANSCODED_SIDE)

    def make_smaller(video: bytes) -> None:
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(video)
            file.flush()
            made[video] = transcode(file.name, config, DecodeConfig()).data

    transcode_s = _median_s(make_smaller, videos["1280x720"], repeats=1)
    return videos | {TRANSCODED: [made[video] for video in videos["1280x720"]]}, transcode_s


def measure_decoding(videos: list[bytes]) -> dict[str, float]:
    """Return seconds of one core per clip of ten seconds: for a captioner's grid, and for training's frames.

    Of this process and of the one that decodes for it.
    """
    grid = make_clip_grid(videos[0], ClipGridConfig(), side=_LLAVA_SIDE).pixels
    rng = np.random.default_rng(0)

    def train(video: bytes, num_frames: int) -> None:
        load_clip_frames(video, num_frames=num_frames, transform=TransformConfig(), rng=rng)

    return {
        "clip_mb": round(float(np.mean([len(video) for video in videos])) / 1e6, 3),
        "grid_s": _median_s(lambda video: make_clip_grid(video, ClipGridConfig(), side=_LLAVA_SIDE), videos),
        "hash_video_s": _median_s(lambda video: hashlib.sha256(video).hexdigest(), videos),
        "hash_grid_s": _median_s(lambda _: hash_pixels(grid), videos),
        **{f"train_{count}_frames_s": _median_s(lambda v, n=count: train(v, n), videos) for count in (4, 12)},
    }


def measure_table(folder: Path) -> dict[str, float]:
    """Return bytes per clip of index, parts and table, and seconds of committing and of the job's end."""
    rows = index_table(_TABLE_CLIPS)
    return measure_parts(folder, rows) | measure_finish(folder, rows)


def measure_parts(folder: Path, rows: pa.Table) -> dict[str, float]:
    """Commit parts to `folder`; return seconds of committing and finding them, and bytes of them and of an index."""
    output = Place.of(folder / "table")
    tables = [part_table(start, _CHUNK_CLIPS) for start in range(0, _TABLE_CLIPS, _CHUNK_CLIPS)]
    began = time.process_time()
    for table in tables:
        write_parts(output, table, _CHUNK_CLIPS)
    commit_s = (time.process_time() - began) / len(tables)
    began = time.process_time()
    names = [name for some in iterate_parts(output) for name in some]
    committed_rows(names, _TABLE_CLIPS)
    scan_s = (time.process_time() - began) / len(names)
    parts_bytes = sum(path.stat().st_size for path in (folder / "table").rglob("*.parquet"))
    in_memory = rows.cast(MEMORY_SCHEMA)
    job_columns = in_memory.select(["clip_id", "shard", "offset", "num_bytes", "sha256"])
    return {
        "commit_s_per_part": round(commit_s, 5),
        "scan_s_per_part": round(scan_s, 8),
        "part_bytes_per_clip": round(parts_bytes / _TABLE_CLIPS, 1),
        "index_file_bytes_per_clip": round(_index_bytes(folder, rows) / _TABLE_CLIPS, 1),
        "index_memory_bytes_per_clip": round(in_memory.nbytes / _TABLE_CLIPS, 1),
        "job_table_bytes_per_clip": round(job_columns.nbytes / _TABLE_CLIPS, 1),
    }


def measure_finish(folder: Path, rows: pa.Table) -> dict[str, float]:
    """Make the table of the parts that `measure_parts` committed; return its bytes and CPU seconds per clip."""
    start_ray()
    plan = SimpleNamespace(
        table=ray.put(rows.select(["clip_id", "sha256"])), num_clips=_TABLE_CLIPS,
        output=Place.of(folder / "table").uri, sampling=SamplingConfig(),
    )  # fmt: skip
    constants = {
        "source": "generated", "model": "llava", "weights_sha256": "0" * 64, "prompt": "Describe the video.",
        "temperature": 0.2, "top_p": 1.0, "max_tokens": 64,
    }  # fmt: skip
    ray.get(shared_captions(plan, PostprocessConfig(), 1000))  # workers start and import
    began = workers_cpu_s()
    shared = shared_captions(plan, PostprocessConfig(), 1000)
    summary, damaged = write_files(plan, Gate(PostprocessConfig(), QualityConfig(), shared), constants)
    assert ray.get(summary).num_rows == _TABLE_CLIPS and not damaged
    finish_s = (workers_cpu_s() - began) / _TABLE_CLIPS
    num_bytes = sum((folder / "table" / file_name(number)).stat().st_size for number in range(num_files(_TABLE_CLIPS)))
    return {
        "table_bytes_per_clip": round(num_bytes / _TABLE_CLIPS, 1),
        "finish_cpu_s_per_clip": round(finish_s, 7),
    }


def measure_llava_processor() -> float:
    """Return seconds of one core that LLaVA-1.5's image processor takes per grid, in the engine's own thread."""
    from PIL import Image
    from transformers import CLIPImageProcessor

    crop = {"height": _LLAVA_SIDE, "width": _LLAVA_SIDE}
    processor = CLIPImageProcessor(size={"shortest_edge": _LLAVA_SIDE}, crop_size=crop)
    pixels = np.random.default_rng(0).integers(0, 255, (_LLAVA_SIDE, _LLAVA_SIDE, 3)).astype(np.uint8)
    return _median_s(lambda _: processor(Image.fromarray(pixels), return_tensors="pt"), [None] * 5)


def index_table(num_clips: int) -> pa.Table:
    """Return an index as prepare writes it of clips with one human caption each."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(num_clips):
        shard = f"clips-{number // 256:06d}.tar"
        rows.append(
            dict.fromkeys(INDEX_SCHEMA.names)
            | {
                "clip_id": f"{hashlib.md5(str(number // 8).encode()).hexdigest()[:11]}-{number % 8:04d}",
                "video_id": hashlib.md5(str(number // 8).encode()).hexdigest()[:11],
                "shard": shard, "offset": number % 256 * 3_000_000 + 512, "num_bytes": int(rng.integers(2e6, 4e6)),
                "sha256": hashlib.sha256(str(number).encode()).hexdigest(), "start_s": 0.0, "end_s": 10.0,
                "duration_s": 10.0, "width": 1280, "height": 720, "fps": 30.0, "codec": "h264", "extension": "mp4",
                "split": "train", "captions": [{"text": _sentence(rng, 12), "source": "human"}],
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def part_table(start: int, count: int) -> pa.Table:
    """Return what an engine commits for rows [start, start + count): captions of about 40 words."""
    rng = np.random.default_rng(start)
    index = index_table_ids(start, count)
    rows = [
        {
            "row": start + place, "clip_id": clip_id, "video_sha256": sha256, "sample": 0,
            "frame_indices": sorted(rng.integers(0, 300, 12).tolist()), "num_filled": 0,
            "shown_sha256": hashlib.sha256(sha256.encode()).hexdigest(), "text": _sentence(rng, 40),
            "seed": int(rng.integers(2**62)), "num_tokens": 45, "finish_reason": "stop",
            "mean_logprob": float(rng.normal(-0.8, 0.2)), "error": None,
        }
        for place, (clip_id, sha256) in enumerate(index)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PART_SCHEMA)


def index_table_ids(start: int, count: int) -> list[tuple[str, str]]:
    """Return clip_id and sha256 of rows of `index_table`."""
    return [
        (
            f"{hashlib.md5(str(number // 8).encode()).hexdigest()[:11]}-{number % 8:04d}",
            hashlib.sha256(str(number).encode()).hexdigest(),
        )
        for number in range(start, start + count)
    ]


def _index_bytes(folder: Path, rows: pa.Table) -> int:
    (folder / "index").mkdir()
    write_index(Place.of(folder / "index"), [rows], {})
    return (folder / "index" / INDEX_NAME).stat().st_size


def _sentence(rng: np.random.Generator, num_words: int) -> str:
    return " ".join(rng.choice(_SENTENCE.split(), num_words))


def _median_s(work: Callable, inputs: list, repeats: int = 3) -> float:
    """Return the median of a call's seconds of a core, after one to warm up, rounded to three digits.

    CPU time of this process and its children, which other work on the machine changes little.
    """
    work(inputs[0])
    clocks = [time.CLOCK_PROCESS_CPUTIME_ID]
    # Linux's clock of another process (clock_getcpuclockid): videos are decoded in children, which live on.
    clocks += [(~child.pid << 3) | 2 for child in psutil.Process().children(recursive=True)]
    times = []
    for value in inputs * repeats:
        began = [time.clock_gettime(clock) for clock in clocks]
        work(value)
        times.append(sum(time.clock_gettime(clock) for clock in clocks) - sum(began))
    return float(f"{np.median(times):.3g}")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown'}, {psutil.virtual_memory().total >> 30} GiB"
