"""Captioning: what the pipeline reaches of its engine's own speed, and what one clip at a time would.

.venv/bin/python benchmarks/captioning.py [--model DIR] [--num_clips 1500] [--max_tokens 32]
    [--num_one_by_one 48] [--corpus_clips N]

All ways caption the same clips of the embedded corpus with the same model, prompt and greedy decoding, on this machine,
one after another:
  engine      the engine alone, on grids that are ready, with one thread
  pipeline    Ray Data: decoding and key frames in tasks, an engine with one thread, commits; without its start
  one by one  the release's way of working: decode a clip, Hugging Face generate, the next clip; all threads
  no cache    LaViLa's way: the same without a key-value cache
Every caption has --max_tokens tokens exactly, so that the ways do the same work whatever the model says.
"""

import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import tyro
from PIL import Image

from mama_ray.captioning.engines.build import build_engine
from mama_ray.captioning.engines.captioner import Captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.engines.protocol import GRID, Shown, caption_all
from mama_ray.captioning.narrator.folder import embedded_narrator, load_narrator
from mama_ray.captioning.pictures.clip_grid import make_clip_grid
from mama_ray.captioning.pictures.settings import ClipGridConfig
from mama_ray.data.index import read_index, select_split
from mama_ray.data.reading import read_clip_bytes
from mama_ray.orchestration.captioning.job import CaptionJob, PoolConfig
from mama_ray.orchestration.captioning.parts import WORK_FOLDER
from mama_ray.orchestration.captioning.plan import CaptionPlan, find_captioner, how_to_show, load_clips, scan_pending
from mama_ray.orchestration.captioning.pool import PoolHistory, fit_pool
from mama_ray.orchestration.captioning.stream import caption_chunks
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.storage.places import Place, absolute_uri

_SPLIT = "train"


def main(
    model: str | None = None,
    num_clips: int = 1500,
    max_tokens: int = 32,
    num_one_by_one: int = 48,
    corpus_clips: int | None = None,
    storage: str = "runs",
) -> None:
    """Measure all ways and print one JSON object; corpus_clips makes a smaller corpus than a job's own."""
    connect()
    job = CaptionJob()
    corpus = job.corpus if corpus_clips is None else job.corpus.model_copy(update={"num_train": corpus_clips})
    shards = embedded_shards(corpus, absolute_uri(storage))
    folder = Path(model) if model else embedded_narrator()
    # The narrator ends its sentences after a few words; a captioner of real videos writes some dozens.
    sampling = SamplingConfig(min_tokens=max_tokens, max_tokens=max_tokens)
    captioner = find_captioner(model and absolute_uri(model), None, frames=job.frames, side=None)
    table, *facts = load_clips(shards, _SPLIT)
    speeds = {}
    with tempfile.TemporaryDirectory() as output:
        (Path(output) / WORK_FOLDER).mkdir()  # as a job that enters its table does
        engine = EngineConfig()
        show = how_to_show(captioner, job.frames, job.decode)
        plan = CaptionPlan(table, *facts, output, model and absolute_uri(model), captioner, show, sampling, engine)
        speeds["pipeline"], busy_share = run_pipeline(plan)
    videos = read_videos(shards, num_clips)
    grids = [make_clip_grid(video, ClipGridConfig(), side=captioner.side) for video in videos]
    shown = [Shown(GRID, grid.pixels, grid.sha256) for grid in grids]
    speeds["engine"] = run_engine(captioner, folder, sampling, shown)
    torch.set_num_threads(os.cpu_count() or 1)
    for name, use_cache in (("one by one", True), ("no cache", False)):
        speeds[name] = run_one_by_one(folder, captioner, videos[:num_one_by_one], max_tokens, use_cache=use_cache)
    result = {
        "model": model or "embedded narrator",
        "tokens_per_s": {name: round(speed, 1) for name, speed in speeds.items()},
        "pipeline over engine": round(speeds["pipeline"] / speeds["engine"], 3),
        "engine busy in the pipeline": round(busy_share, 3),
        "pipeline over one by one": round(speeds["pipeline"] / speeds["one by one"], 1),
        "pipeline over no cache": round(speeds["pipeline"] / speeds["no cache"], 1),
    }
    print(json.dumps(result, indent=1))


def run_pipeline(plan: CaptionPlan) -> tuple[float, float]:
    """Return tokens per second of the engine's life, from ready to its last commit, and the share it was busy."""
    num_tokens, times = 0, {}
    for counts in caption_chunks(plan, scan_pending(plan), fit_pool(PoolConfig(), is_cluster=False), PoolHistory()):
        num_tokens += sum(counts["num_tokens"])
        columns = (counts[key] for key in ("engine", "engine_busy_s", "engine_idle_s"))
        for name, busy_s, idle_s in zip(*columns, strict=True):
            times[name] = max(times.get(name, (0.0, 0.0)), (busy_s, idle_s), key=sum)
    busy_s, idle_s = (sum(column) for column in zip(*times.values(), strict=True))
    return num_tokens / (busy_s + idle_s), busy_s / (busy_s + idle_s)


def run_engine(captioner: Captioner, folder: Path, sampling: SamplingConfig, shown: list[Shown]) -> float:
    """Return tokens per second of the engine alone."""
    engine = build_engine(captioner, folder, sampling, EngineConfig())
    began = time.perf_counter()
    caption_all(engine, shown, range(len(shown)))
    speed = engine.num_tokens / (time.perf_counter() - began)
    engine.close()
    return speed


@torch.inference_mode()
def run_one_by_one(folder: Path, captioner, videos: list[bytes], max_tokens: int, *, use_cache: bool) -> float:
    """Return tokens per second of decoding and captioning one clip after another with Hugging Face generate."""
    narrator = load_narrator(folder)
    num_tokens = 0
    for number, video in enumerate([videos[0], *videos]):
        if number == 1:
            began, num_tokens = time.perf_counter(), 0  # the first one warms up
        grid = make_clip_grid(video, ClipGridConfig(), side=captioner.side)
        inputs = narrator.processor(images=Image.fromarray(grid.pixels), text=captioner.prompt, return_tensors="pt")
        length = {"min_new_tokens": max_tokens, "max_new_tokens": max_tokens}
        tokens = narrator.model.generate(**inputs, **length, do_sample=False, use_cache=use_cache)
        num_tokens += tokens.shape[1] - inputs["input_ids"].shape[1]
    return num_tokens / (time.perf_counter() - began)


def read_videos(shards: str, num_clips: int) -> list[bytes]:
    """Return the bytes of the first clips."""
    folder = Place.of(shards)
    rows = select_split(read_index(folder), _SPLIT).slice(0, num_clips)
    places = rows.select(["shard", "offset", "num_bytes"]).to_pylist()
    return [read_clip_bytes(folder, **place) for place in places]


if __name__ == "__main__":
    tyro.cli(main)
