"""What the training stream costs over bare decoding: clips/s of Ray Data and of one process for the same frames.

    python benchmarks/data_loading.py [--shards DIR] [--steps 300] [--batch 64] [--corpus-clips N] [--output FILE]

Three readers of the same clips in the same order, as ratios within one run:

    decord    one process, bare decord: open the bytes, fetch the same frames at the same size, nothing else
    assemble  one process, this package's reader: hash check, decode, transform, caption, tokens
    stream    the pipeline of one train worker: Ray Data tasks decode, the worker receives tensors in the plan's order
"""

import argparse
import io
import itertools
import json
import sys
import time

import decord
import numpy as np
import pyarrow as pa
import ray

from mama_ray.data.assemble import ClipAssembler
from mama_ray.data.batch import to_clip_batch
from mama_ray.data.reading import read_payloads
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.video.sampling import row_rng, sample_timestamps
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.prepare.embedded import embedded_shards
from mama_ray.orchestration.runs.batch_stream import stream_arrays
from mama_ray.orchestration.training.clip_reader import ClipReader
from mama_ray.orchestration.training.data import load_run_data
from mama_ray.orchestration.training.settings import DataConfig


def read_with_decord(reader: ClipReader, args: argparse.Namespace) -> int:
    """Decode the frames that training would, with decord alone."""
    assembler = reader.clips(reader.table)
    assert isinstance(assembler, ClipAssembler)
    decord.logging.set_level(decord.logging.QUIET)
    records = assembler.table.take(pa.array(range(len(assembler.table)))).to_pylist()
    size, num_clips = args.image_size, 0
    for step in range(args.steps):
        for row, epoch in zip(*reader.epoch_plan().global_batch(step, args.batch), strict=True):
            (payload,) = read_payloads(assembler.folder, [records[int(row)]])
            if isinstance(payload, Exception):
                raise payload
            video = decord.VideoReader(io.BytesIO(payload), width=size, height=size, num_threads=1)
            moments = sample_timestamps(
                len(video) / video.get_avg_fps(), args.frames, rng=row_rng(0, int(epoch), int(row))
            )
            video.get_batch(np.minimum((moments * video.get_avg_fps()).astype(int), len(video) - 1)).asnumpy()
            num_clips += 1
    return num_clips


def read_in_process(reader: ClipReader, args: argparse.Namespace) -> int:
    """Assemble the same batches in this process."""
    assembler = reader.assembler()
    for step in range(args.steps):
        assembler.assemble(*reader.epoch_plan().global_batch(step, args.batch))
    return args.steps * args.batch


def read_through_ray(reader: ClipReader, args: argparse.Namespace, first_step: int) -> tuple[int, float]:
    """Stream batches; the clock starts at the first one, when the decode processes are up."""
    arrays = stream_arrays(
        reader,
        first_step=first_step,
        num_steps=first_step + args.steps + args.warmup,
        global_batch_size=args.batch,
        rank=0,
        world_size=1,
        num_decode_cpus=args.decode_cpus,
    )
    stream = map(to_clip_batch, arrays)
    for _ in itertools.islice(stream, args.warmup):
        pass
    start = time.perf_counter()
    num_clips = sum(len(batch) for batch in stream)
    return num_clips, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", help="prepared shards; the embedded corpus where left out")
    parser.add_argument("--corpus-clips", type=int, default=CorpusConfig().num_train, help="of the embedded corpus")
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--warmup", type=int, default=80)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=4)
    # Not the corpus's own 48: decord's get_batch fails at widths whose rows it pads (16, 24, 48, 72).
    parser.add_argument("--image-size", type=int, default=64)
    # Twice the two cores, as training does: Ray Data runs half as many tasks as its limit allows.
    parser.add_argument("--decode-cpus", type=float, default=4)
    parser.add_argument("--output")
    args = parser.parse_args()
    connect()
    shards = args.shards or embedded_shards(CorpusConfig(num_train=args.corpus_clips), args.storage)
    config = DataConfig(num_frames=args.frames)
    data = load_run_data(shards, config, seed=0, tokenizer=None)
    transform = TransformConfig(image_size=args.image_size, resize=config.resize)
    reader = ClipReader(
        table=data.train,
        shards=shards,
        tokenizer_files=data.tokenizer_files,
        num_frames=args.frames,
        transform=transform,
        decode=config.decode,
        caption_probabilities=None,
        joins_captions=False,
        seed=0,
        plan=config.plan,
    )
    rates = {}
    for name, read in (("decord", read_with_decord), ("assemble", read_in_process)):
        start = time.perf_counter()
        num_clips = read(reader, args)
        rates[name] = num_clips / (time.perf_counter() - start)
    num_clips, seconds = read_through_ray(reader, args, first_step=0)
    rates["stream"] = num_clips / seconds
    report = {
        "setting": vars(args) | {"cpus": ray.cluster_resources().get("CPU")},
        "clips_per_s": rates,
        "ratio_to_decord": {name: rate / rates["decord"] for name, rate in rates.items()},
    }
    text = json.dumps(report, indent=1)
    if args.output:
        with open(args.output, "w") as file:
            file.write(text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
