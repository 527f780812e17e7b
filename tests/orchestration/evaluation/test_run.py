"""One small real corpus, a random model, and every promise of the evaluation job."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import mama_ray
from mama_ray.data.clip import Caption, Clip
from mama_ray.data.index import INDEX_SCHEMA, hash_ids, index_row, read_index, select_split, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.protocol import ResultFile
from mama_ray.evaluation.retrieval import retrieval_metrics
from mama_ray.models.pretrained import from_pretrained
from mama_ray.orchestration.evaluation.embed import embed_clips, read_features
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.model import find_model
from mama_ray.orchestration.evaluation.run import _embed_plan, evaluate, load_benchmark
from mama_ray.orchestration.evaluation.split import load_evaluated_split
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video

NUM_TEST = 23  # prime: no batch size divides it
COLOURS = ("red", "green", "blue", "white")
FACTS = {"duration_s": 1.0, "width": 48, "height": 48, "fps": 8.0, "codec": "h264"}


def make_clip(number: int, split: str, captions: tuple[str, ...]) -> Clip:
    texts = tuple(Caption(text) for text in captions)
    topic = COLOURS[number % (4 if split == "test" else 2)]
    return Clip(f"{split}{number:03d}", f"{split}v{number}", 0.0, 1.0, texts, topic=topic, split=split)


def write_corpus(directory: Path, clips: list[tuple[Clip, bytes]]) -> None:
    directory.mkdir(parents=True)
    samples = [(clip, video, "mp4") for clip, video in clips]
    places = write_shard(directory / "clips-000000.tar", samples)
    rows = [
        index_row(clip, place, "clips-000000.tar", FACTS) for (clip, *_), place in zip(samples, places, strict=True)
    ]
    sizes = {"clips-000000.tar": {"num_bytes": (directory / "clips-000000.tar").stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(directory), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)


def videos(count: int) -> list[bytes]:
    """Videos of different length, hence of different frames."""
    return [make_video(num_frames=3 + number, width=48, height=32) for number in range(count)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    clips = [
        (make_clip(n, "test", (f"a {COLOURS[n % 4]} thing number {n} moves",)), video)
        for n, video in enumerate(videos(NUM_TEST))
    ]
    clips += [(make_clip(n, "train", ("a thing",)), clips[0][1]) for n in range(5)]
    directory = tmp_path_factory.mktemp("corpus") / "shards"
    write_corpus(directory, clips)
    return directory


def write_benchmark(folder: Path, **fields) -> str:
    path = folder / "small.yaml"
    path.write_text(json.dumps({"dataset": "small", "split": "test"} | fields))
    return str(path)


def in_one_process(shards: Path, model_folder: Path) -> dict[str, float]:
    """The plain metrics by a loop over the clips, without Ray."""
    table = select_split(read_index(Place.of(shards)), "test")
    model, tokenizer = from_pretrained(model_folder).eval(), Tokenizer.from_directory(model_folder)
    video_features, text_features = [], []
    with torch.inference_mode():
        for clip in table.to_pylist():
            data = (shards / clip["shard"]).read_bytes()[clip["offset"] : clip["offset"] + clip["num_bytes"]]
            frames = load_clip_frames(data, num_frames=4, transform=TransformConfig(image_size=48, resize="squash"))
            video_features.append(model.encode_video(torch.from_numpy(frames)[None])[0].numpy())
            token_ids = torch.from_numpy(tokenizer([clip["captions"][0]["text"]]))
            text_features.append(model.encode_text(token_ids)[0].numpy())
    ids = table["clip_id"].to_pylist()
    return retrieval_metrics(np.stack(video_features), np.stack(text_features), ids, ids)


@pytest.mark.ray
def test_evaluation_sees_every_row(ray_cluster, shards, model_folder, tmp_path, caplog):
    job = EvaluateJob(
        checkpoint=str(model_folder), shards=str(shards), output=str(tmp_path), batch_size=4,
        benchmark=write_benchmark(tmp_path),
    )  # fmt: skip
    found = evaluate(job)
    plain, dual = found.file.results
    assert plain.protocol.num_videos == plain.protocol.num_texts == NUM_TEST
    assert plain.protocol.ids_sha256 == hash_ids([f"test{n:03d}" for n in range(NUM_TEST)])
    assert plain.metrics == pytest.approx(in_one_process(shards, model_folder))
    assert (plain.label, plain.protocol.dual_softmax) == ("plain", False)
    assert (dual.label, dual.protocol.dual_softmax, dual.protocol.dual_softmax_negatives) == (
        "dual_softmax",
        True,
        "as_is",
    )
    assert sum(topic.num_videos for topic in plain.topics) == NUM_TEST
    assert [topic.num_train for topic in plain.topics] == [3, 2, 0, 0]
    assert plain.head.num_train + plain.tail.num_train == 5
    assert [len(example.retrieved) for example in plain.examples] == [5] * 6
    assert all((example.rank <= 5) == (example.clip_id in example.retrieved) for example in plain.examples)
    assert ResultFile.from_json(Path(found.uri).read_text()) == found.file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.json", "small.yaml"]
    assert "dual softmax" in found.tables()
    whole = Tokenizer.from_directory(model_folder, context_length=99)
    texts = [f"a {COLOURS[n % 4]} thing number {n} moves" for n in range(NUM_TEST)]
    share = sum(int(row.argmax()) + 1 > 24 for row in whole(texts)) / NUM_TEST
    assert share > 0.5
    assert f"{100 * share:.0f} % of captions are longer than 24 tokens and lose their end" in caplog.text


@pytest.mark.ray
@pytest.mark.parametrize("resize", ["squash", "center_crop"])
def test_an_encoder_of_python_gives_the_features_of_evaluation(ray_cluster, shards, model_folder, tmp_path, resize):
    benchmark = load_benchmark(write_benchmark(tmp_path))
    job = EvaluateJob(checkpoint=str(model_folder), resize=resize, batch_size=5)
    split = load_evaluated_split(str(shards), benchmark)
    model = find_model(str(model_folder), benchmark, resize=resize)
    embed_clips(
        _embed_plan(job, str(shards), benchmark, model, split), str(tmp_path / "f"), num_actors=1, use_gpu=False
    )
    videos, texts, _, errors = read_features(Place.of(tmp_path / "f"), split.num_clips)
    assert not errors
    clips = select_split(read_index(Place.of(shards)), "test").to_pylist()
    for clip in clips:
        data = (shards / clip["shard"]).read_bytes()[clip["offset"] : clip["offset"] + clip["num_bytes"]]
        (tmp_path / f"{clip['clip_id']}.mp4").write_bytes(data)
    encoder = mama_ray.load_encoder(model_folder, resize=resize, batch_size=5)
    found = encoder.encode_videos([tmp_path / f"{clip['clip_id']}.mp4" for clip in clips], progress=False)
    np.testing.assert_array_equal(found.features, videos)
    np.testing.assert_array_equal(encoder.encode_texts([clip["captions"][0]["text"] for clip in clips]), texts)


@pytest.mark.ray
def test_an_undecodable_clip_is_counted_and_named(ray_cluster, model_folder, tmp_path):
    clips = [(make_clip(n, "test", (f"thing {n}",)), video) for n, video in enumerate(videos(7))]
    clips[3] = (clips[3][0], b"no video at all" * 20)
    write_corpus(tmp_path / "shards", clips)
    job = EvaluateJob(
        checkpoint=str(model_folder), shards=str(tmp_path / "shards"), output=str(tmp_path), batch_size=3,
        benchmark=write_benchmark(tmp_path, dual_softmax="off"),
    )  # fmt: skip
    file = evaluate(job).file
    (result,) = file.results
    assert [(clip["clip_id"], bool(clip["error"])) for clip in file.missing] == [("test003", True)]
    assert (result.protocol.num_videos, result.protocol.num_missing) == (7, 1)
    assert file.benchmark == result.protocol.name == "small (6 of 7)"
    assert result.metrics["t2v_R@5"] <= 100 * 6 / 7


@pytest.mark.ray
def test_every_caption_is_a_query_in_multi_mode(ray_cluster, model_folder, tmp_path):
    captions = [tuple(f"thing {n} told {k}" for k in range(1 + n)) for n in range(5)]
    clips = [(make_clip(n, "test", own), video) for (n, own), video in zip(enumerate(captions), videos(5), strict=True)]
    write_corpus(tmp_path / "shards", clips)
    job = EvaluateJob(
        checkpoint=str(model_folder), shards=str(tmp_path / "shards"), output=str(tmp_path),
        benchmark=write_benchmark(tmp_path, caption_mode="multi", video_to_text="group_max"),
    )  # fmt: skip
    plain = evaluate(job).file.results[0]
    assert (plain.protocol.num_videos, plain.protocol.num_texts) == (5, 15)
    assert max(plain.metrics["v2t_mean_rank"], plain.metrics["t2v_mean_rank"]) <= 5
    texts = {text: f"test{n:03d}" for n, own in enumerate(captions) for text in own}
    assert all(texts[example.text] == example.clip_id for example in plain.examples)


@pytest.mark.ray
def test_a_clip_with_two_captions_does_not_fit_single(ray_cluster, model_folder, tmp_path):
    clips = [(make_clip(n, "test", ("one", "two")), video) for n, video in enumerate(videos(2))]
    write_corpus(tmp_path / "shards", clips)
    job = EvaluateJob(
        checkpoint=str(model_folder), shards=str(tmp_path / "shards"), output=str(tmp_path),
        benchmark=write_benchmark(tmp_path),
    )  # fmt: skip
    with pytest.raises(UserError, match="test clip test000 and 1 others do not fit the benchmark small"):
        evaluate(job)
    other = job.model_copy(update={"benchmark": write_benchmark(tmp_path, split="val")})
    with pytest.raises(UserError, match="no clips of split val to evaluate on: got .*shards with 2 test; name"):
        evaluate(other)
    assert not (tmp_path / "small.json").exists()
