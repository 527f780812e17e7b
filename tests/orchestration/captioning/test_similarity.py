"""Every caption has the cosine that a loop over the clips gives, and clips that cannot be decoded have none."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from safetensors.torch import load_file, save_file

from mama_ray.captioning.engines.captioner import Captioner
from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig
from mama_ray.captioning.pictures.settings import GRID
from mama_ray.captioning.postprocess import PostprocessConfig
from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, read_index, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.models.feature_encoder import FeatureEncoder
from mama_ray.models.weight_files import hash_weights
from mama_ray.orchestration.captioning.job import PoolConfig
from mama_ray.orchestration.captioning.parts import PART_SCHEMA, write_parts
from mama_ray.orchestration.captioning.plan import COLUMNS, CaptionPlan
from mama_ray.orchestration.captioning.similarity import (
    CaptionScorer,
    decode_chunk,
    find_dual_encoder,
    read_similarities,
    score_captions,
)
from mama_ray.orchestration.captioning.source import ShardSource, ShowConfig
from mama_ray.orchestration.evaluation.embed import EmbedPlan
from mama_ray.storage.places import Place
from mama_ray.training.manifest import write_manifest
from tests.data.video.video_factory import make_video
from tests.encoder.tiny_encoder import model_folder  # noqa: F401 - a fixture

NUM_CLIPS = 40  # a chunk and a quarter
BROKEN = 35
NUM_CAPTIONS = 2
SHARD = "clips-000000.tar"
FACTS = {"duration_s": 1.0, "width": 48, "height": 48, "fps": 8.0, "codec": "h264"}

pytestmark = pytest.mark.ray


def text_of(row: int, sample: int) -> str:
    return f"thing {row} moves {sample} times"


@pytest.fixture(scope="module")
def videos() -> list[bytes]:
    """Videos of different length, hence of different frames; one is none."""
    made = [make_video(num_frames=3 + number % 9, width=48, height=32) for number in range(NUM_CLIPS)]
    made[BROKEN] = b"no video at all" * 20
    return made


@pytest.fixture
def plan(ray_cluster, videos, tmp_path) -> CaptionPlan:
    """Return the plan of a job that has committed all captions; the last clip's could not be written."""
    shards, output = tmp_path / "shards", tmp_path / "captions"
    shards.mkdir()
    clips = [Clip(f"clip-{n:03d}", f"v{n}", 0.0, 1.0, (Caption("none"),), None, "train") for n in range(NUM_CLIPS)]
    places = write_shard(shards / SHARD, [(clip, video, "mp4") for clip, video in zip(clips, videos, strict=True)])
    rows = [index_row(clip, place, SHARD, FACTS) for clip, place in zip(clips, places, strict=True)]
    sizes = {SHARD: {"num_bytes": (shards / SHARD).stat().st_size, "num_clips": NUM_CLIPS}}
    write_index(Place.of(shards), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    empty = dict.fromkeys(PART_SCHEMA.names)
    made = [
        {**empty, "row": row, "sample": sample, "text": None if row == NUM_CLIPS - 1 else text_of(row, sample)}
        for row in range(NUM_CLIPS)
        for sample in range(NUM_CAPTIONS)
    ]
    write_parts(Place.of(output), pa.Table.from_pylist(made, schema=PART_SCHEMA))
    table = read_index(Place.of(shards)).select(list(COLUMNS))
    captioner = Captioner("LlavaForConditionalGeneration", 64, "p", 80, None, "w", "vllm")
    return CaptionPlan(
        ray.put(table), NUM_CLIPS, "ids", ShardSource(str(shards), 1), str(output), None, captioner,
        ShowConfig(GRID, 64), SamplingConfig(num_captions=NUM_CAPTIONS, temperature=0.5), EngineConfig(),
    )  # fmt: skip


def in_one_process(model: EmbedPlan, videos: list[bytes]) -> dict[tuple[int, int], float]:
    """The cosines by a loop over the clips, without Ray."""
    encoder = FeatureEncoder.load(model.model, text_length=model.text_length, batch_size=1)
    found = {}
    for row in set(range(NUM_CLIPS - 1)) - {BROKEN}:
        frames = load_clip_frames(videos[row], num_frames=model.num_frames, transform=model.transform)
        video = encoder.video_features(frames[None])[0]
        for sample in range(NUM_CAPTIONS):
            found[row, sample] = float(encoder.text_features([text_of(row, sample)])[0] @ video)
    return found


def test_chunks_that_are_not_full_are_scored_as_in_a_loop_and_broken_clips_are_not(plan, videos, model_folder):  # noqa: F811
    model = find_dual_encoder(plan, str(model_folder))
    score_captions(plan, model, PostprocessConfig(), PoolConfig())
    folder = Path(plan.output) / ".captioning/similarity/000000"
    counts = [pq.read_metadata(path).num_rows for path in sorted(folder.iterdir())]
    assert counts == [32 * NUM_CAPTIONS, 6 * NUM_CAPTIONS]
    found = read_similarities(Place.of(plan.output), 0)
    assert found == pytest.approx(in_one_process(model, videos), abs=1e-5)
    assert len(set(found.values())) > NUM_CLIPS, "cosines that tell clips from one another"


def test_scores_by_other_weights_are_made_anew(plan, model_folder, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    first = shutil.copytree(model_folder, run / "checkpoints/step_00000001")
    write_manifest(first, step=1, selection=None)
    model = find_dual_encoder(plan, str(run))
    assert score_captions(plan, model, PostprocessConfig(), PoolConfig()) == hash_weights(first)
    earlier = read_similarities(Place.of(plan.output), 0)
    # The job is killed here, and half of its scores are to be made when the run has another checkpoint.
    (tmp_path / "captions/.captioning/similarity/000000/00000001.parquet").unlink()
    second = shutil.copytree(model_folder, run / "checkpoints/step_00000002")
    learned = load_file(second / "model.safetensors")
    turned = {name: tensor.flip(0) if tensor.ndim else tensor for name, tensor in learned.items()}
    save_file(turned, second / "model.safetensors")
    write_manifest(second, step=2, selection=None)
    model = find_dual_encoder(plan, str(run))
    assert score_captions(plan, model, PostprocessConfig(), PoolConfig()) == hash_weights(second)
    later = read_similarities(Place.of(plan.output), 0)
    assert later.keys() == earlier.keys()
    assert all(abs(later[key] - earlier[key]) > 1e-6 for key in earlier)


def test_a_chunk_without_a_clip_that_decodes_is_scored_once_and_for_all(plan, model_folder):  # noqa: F811
    model = find_dual_encoder(plan, str(model_folder))
    batch = decode_chunk(model, 1)
    assert {len(column) for column in batch.values()} == {1}, "rows that Ray Data could part or mix with others"
    batch["is_decoded"] = np.zeros_like(batch["is_decoded"])
    scorer = CaptionScorer(plan, model, PostprocessConfig(), hash_weights(Path(model.model)))
    assert scorer(batch)["num_captions"].tolist() == [0]
    assert [path.name for path in (Path(plan.output) / ".captioning/similarity/000000").iterdir()] == [
        "00000001.parquet"
    ]
