"""What a corpus of so many clips takes before and beside the streaming: bytes, files, requests, hours of waiting."""

from mama_ray.experiments.scaling.inputs import CLIPS_PER_SHARD, Assumptions, requests
from mama_ray.experiments.scaling.scenario import CHUNK_CLIPS

_CLIPS_PER_FILE = 4096  # mama_ray/orchestration/captioning/parts.py
_KEYS_PER_LISTING = 1000
_CHECK_THREADS = 24  # mama_ray/data/shard_check.py
_CLIPS_PER_HASH_RANGE = 4_000_000  # mama_ray/orchestration/captioning/copies.py


def corpus_sizes(assume: Assumptions, calibration: dict, num_clips: int, size: str = "1280x720") -> dict[str, float]:
    """Return bytes, counts and seconds at `num_clips` clips, each a measured figure per clip, part or shard times."""
    table, control, storage = (calibration[name] for name in ("table", "control", "storage"))
    num_chunks = -(-num_clips // CHUNK_CLIPS)
    num_shards = -(-num_clips // CLIPS_PER_SHARD)
    num_files = -(-num_clips // _CLIPS_PER_FILE)
    num_ranges = 1 + num_clips // _CLIPS_PER_HASH_RANGE
    checks = requests(storage, "shard_check", ("GET", "HEAD"))
    return {
        "video_tb": num_clips * calibration["decode"][size]["clip_mb"] / 1e6,
        "num_shards": num_shards,
        "index_file_gb": num_clips * table["index_file_bytes_per_clip"] / 1e9,
        "index_memory_gb": num_clips * table["index_memory_bytes_per_clip"] / 1e9,
        "train_memory_gb": num_clips * table["train_memory_bytes_per_clip"] / 1e9,
        "job_table_gb_per_node": num_clips * table["job_table_bytes_per_clip"] / 1e9,
        "caption_table_gb": num_clips * table["table_bytes_per_clip"] / 1e9,
        "num_table_files": num_files,
        "num_parts": num_chunks,
        "parts_gb": num_clips * table["part_bytes_per_clip"] / 1e9,
        "listings_to_scan_parts": -(-num_chunks // _KEYS_PER_LISTING),
        "scan_parts_s": num_chunks * table["scan_s_per_part"]
        + -(-num_chunks // _KEYS_PER_LISTING) * assume.read_latency_s,
        "check_shards_h": num_shards * checks * assume.read_latency_s / _CHECK_THREADS / 3600,
        "driver_gb_of_chunks": num_chunks * control["driver_bytes_per_chunk_1_engines"] / 1e9,
        "driver_gb_of_hashes": num_files * num_ranges * control["driver_bytes_per_small_result"] / 1e9,
        "finish_cpu_h": num_clips * table["finish_cpu_s_per_clip"] / 3600,
        "read_requests": num_clips * requests(storage, "clip_read", ("GET", "HEAD")),
        "write_requests": num_chunks * requests(storage, "part", ("PUT", "POST")),
    }


def captions_usd(
    assume: Assumptions, sizes: dict, *, gpu_hours: float, cpu_hours: float, num_clips: int, spot: bool
) -> float:
    """Return the price of a million captions: GPUs with their nodes, further CPUs, requests."""
    gpu, cpu = (
        (assume.gpu_hour_spot_usd, assume.cpu_hour_spot_usd) if spot else (assume.gpu_hour_usd, assume.cpu_hour_usd)
    )
    storage = sizes["read_requests"] * assume.gets_per_1000_usd + sizes["write_requests"] * assume.puts_per_1000_usd
    return (gpu_hours * gpu + cpu_hours * cpu + storage / 1000) / num_clips * 1e6
