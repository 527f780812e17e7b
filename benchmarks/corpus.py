"""Measure how fast the synthetic corpus is made.

    python benchmarks/corpus.py [--level simple|full] [--num-clips 500] [--warm-up 300]

Prints one JSON object: clips per second of one process and of Ray on all cores, mean bytes of a video, and where the
time of one clip goes.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.encode import encode_mp4
from mama_ray.data.synthetic.facts import facts_of, stream_rng
from mama_ray.data.synthetic.folder import write_corpus
from mama_ray.data.synthetic.generate import describe_clip
from mama_ray.data.synthetic.render import render_frames
from mama_ray.data.synthetic.scene import draw_scene
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.prepare.corpus import build_corpus


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--level", choices=("simple", "full"), default="simple")
    parser.add_argument("--num-clips", type=int, default=500)
    parser.add_argument("--warm-up", type=int, default=300, help="clips made before the clock starts")
    arguments = parser.parse_args()
    config = CorpusConfig(level=arguments.level, num_train=arguments.num_clips, num_meta=0, num_val=0, num_test=0)
    connect(num_cpus=os.cpu_count())
    with tempfile.TemporaryDirectory() as scratch:
        # Starts the workers, which is no part of the making.
        build_corpus(config.model_copy(update={"num_train": arguments.warm_up}), f"{scratch}/warm_up")
        started_s = time.perf_counter()
        write_corpus(config, f"{scratch}/alone")
        alone_s = time.perf_counter() - started_s
        started_s = time.perf_counter()
        build_corpus(config, f"{scratch}/ray")
        ray_s = time.perf_counter() - started_s
        sizes = [path.stat().st_size for path in Path(scratch, "alone/videos").iterdir()]
    report = {
        "level": config.level,
        "num_clips": config.num_train,
        "num_cpus": os.cpu_count(),
        "one_process_clips_per_s": round(config.num_train / alone_s, 1),
        "ray_clips_per_s": round(config.num_train / ray_s, 1),
        "mean_video_bytes": round(sum(sizes) / len(sizes)),
        "cpu_ms_per_clip": measure_parts(config),
    }
    print(json.dumps(report, indent=1))


def measure_parts(config: CorpusConfig, count: int = 200) -> dict[str, float]:
    """Return the CPU time of each part of a clip in milliseconds."""
    spent = dict.fromkeys(("describe", "render", "encode"), 0.0)
    for number in range(min(count, config.num_train)):
        marks = [time.process_time()]
        describe_clip(config, "train", number)
        marks.append(time.process_time())
        facts, rng = facts_of(config, "train", number), stream_rng(config.seed, "scene", "train", number)
        scene = draw_scene(facts, config.level, config.num_frames, rng)
        frames = render_frames(facts, scene, config.level, config.image_size, rng)
        marks.append(time.process_time())
        encode_mp4(frames, config.fps)
        marks.append(time.process_time())
        for name, start, end in zip(spent, marks, marks[1:], strict=False):
            spent[name] += end - start
    return {name: round(1000 * total / min(count, config.num_train), 2) for name, total in spent.items()}


if __name__ == "__main__":
    main()
