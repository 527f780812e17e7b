"""What a corpus of so many clips takes before and beside the streaming: bytes, files, requests, hours of waiting."""

import json

from mama_ray.experiments.scaling.inputs import CALIBRATION, CLIPS_PER_SHARD, Assumptions, chunk_requests
from mama_ray.orchestration.captioning.parts import CLIPS_PER_FILE, chunk_clips_of
from mama_ray.orchestration.cluster.pipelines import NUMBERS_PER_PIPELINE
from mama_ray.orchestration.cluster.row_server import MAX_HELD_ROWS

MEMORY = CALIBRATION.with_name("memory.json")
CHECK_THREADS, MOST_ENDS = 24, 1024  # mama_ray/data/shard_check.py
_LIST_THREADS = 24  # mama_ray/orchestration/captioning/parts.py
_KEYS_PER_LISTING = 1000
_SLICE_ROWS = 1 << 16  # of an index, at a time
_MIB = 1 << 20


def corpus_sizes(
    assume: Assumptions, calibration: dict, num_clips: int, size: str = "1280x720", shard_folders: int = 0
) -> dict[str, float]:
    """Return bytes, counts and seconds of a job of `num_clips` clips, each a measured figure per clip, part or shard
    times. What a process holds is bounded, whatever the number."""
    table, control = (calibration[name] for name in ("table", "control"))
    chunk_clips, clip_bytes = chunk_clips_of(num_clips), calibration["decode"][size]["clip_mb"] * 1e6
    num_chunks, num_shards, num_files = (-(-num_clips // of) for of in (chunk_clips, CLIPS_PER_SHARD, CLIPS_PER_FILE))
    held = num_clips * table["job_table_bytes_per_clip"] if num_clips <= MAX_HELD_ROWS else 0.0
    in_pipeline, num_pipelines = min(num_chunks, NUMBERS_PER_PIPELINE), -(-num_chunks // NUMBERS_PER_PIPELINE)
    checks, checks_s = _check_of(assume, num_shards, shard_folders)
    per_part = sum(calibration["storage"]["part"].values())
    return {
        "video_tb": num_clips * clip_bytes / 1e12,
        "num_shards": num_shards,
        "index_file_gb": num_clips * table["index_file_bytes_per_clip"] / 1e9,
        "index_slice_mb": min(num_clips, _SLICE_ROWS) * table["index_memory_bytes_per_clip"] / 1e6,
        "most_memory_of_a_process_gib": max(peak_mib(num_clips).values()) / 1024,
        "job_state_mb_per_node": (num_clips / 8 + 8 * num_chunks + held) / 1e6,
        "driver_mb_of_a_pipeline": in_pipeline
        * (control["driver_bytes_per_chunk_1_engines"] + control["source_bytes_per_chunk"])
        / 1e6,
        "caption_table_gb": num_clips * table["table_bytes_per_clip"] / 1e9,
        "num_table_files": num_files,
        "clips_per_chunk": chunk_clips,
        "num_parts": num_chunks,
        "num_pipelines": num_pipelines,
        "parts_gb": num_clips * table["part_bytes_per_clip"] / 1e9,
        "scan_parts_s": num_chunks * table["scan_s_per_part"]
        + -(-num_files // _LIST_THREADS) * assume.read_latency_s,
        "check_requests": checks,
        "check_shards_s": checks_s,
        "finish_cpu_h": num_clips * table["finish_cpu_s_per_clip"] / 3600,
        "read_requests": num_chunks * sum(chunk_requests(clip_bytes, chunk_clips)),
        "write_requests": num_chunks * per_part,
    }  # fmt: skip


def peak_mib(num_clips: int) -> dict[str, float]:
    """Return the peak memory of the stages that read an index, MiB: on a line through two measured sizes, or from one
    on by what grows with rows and shards; below the smaller size its own."""
    measured = json.loads(MEMORY.read_text())
    few, many = measured["clips"]
    result = {}
    for stage, (at_few, at_many) in measured["peak_mib"].items():
        growth = measured["growth_bytes_per_clip"] / _MIB if at_few is None else (at_many - at_few) / (many - few)
        result[stage] = at_many + growth * (max(num_clips, few) - many)
    return result


def _check_of(assume: Assumptions, num_shards: int, shard_folders: int) -> tuple[int, float]:
    """Return requests and seconds of the check of the shards: sizes by listings, of so many shards also their ends."""
    ends = min(num_shards, MOST_ENDS)
    folders = max(1, min(shard_folders, num_shards))
    listings = folders * -(-num_shards // folders // _KEYS_PER_LISTING) if num_shards > MOST_ENDS else 0
    return listings + 2 * ends, (listings + 2 * ends / CHECK_THREADS) * assume.read_latency_s


def captions_usd(
    assume: Assumptions, sizes: dict, *, gpu_hours: float, cpu_hours: float, num_clips: int, spot: bool
) -> float:
    """Return the price of a million captions: GPUs with their nodes, further CPUs, requests."""
    gpu, cpu = (
        (assume.gpu_hour_spot_usd, assume.cpu_hour_spot_usd) if spot else (assume.gpu_hour_usd, assume.cpu_hour_usd)
    )
    storage = sizes["read_requests"] * assume.gets_per_1000_usd + sizes["write_requests"] * assume.puts_per_1000_usd
    return (gpu_hours * gpu + cpu_hours * cpu + storage / 1000) / num_clips * 1e6
