"""A few clips, a tiny model and annotations of the official form: what the job writes is what a loop computes."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from mama_ray.data.benchmarks.egomcq import ChoiceClip
from mama_ray.data.clip import Clip
from mama_ray.data.index import INDEX_SCHEMA, index_row, write_index
from mama_ray.data.shard import write_shard
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.data.video.view_loading import load_views
from mama_ray.data.video.views import ViewConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.annotated_benchmark import AnnotatedResult
from mama_ray.evaluation.annotated_scores import head_scores
from mama_ray.evaluation.score_file import measure_file
from mama_ray.evaluation.targets import read_targets
from mama_ray.models.feature_encoder import FeatureEncoder
from mama_ray.models.heads.classes import (
    ClassHeads,
    Classifier,
    capture_class_head,
    clip_feature_dim,
    write_class_head,
)
from mama_ray.models.pretrained import from_pretrained
from mama_ray.orchestration.evaluation.annotated import score_features
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.run import load_benchmark, run
from mama_ray.storage.places import Place
from tests.data.shard_factory import FACTS
from tests.data.video.video_factory import make_video
from tests.evaluation.small_annotations import EGTEA_CLIPS, write_egomcq, write_egtea, write_ek100

VIEWS = "views: {num_windows: 2, window_frames: 4, num_crops: 3, pool: max}"
CHOICES = [("v0", -1.0, 1.0), *((f"v{k}", float(k), k + 1.0) for k in range(1, 6))]


def write_clips(folder: Path, clip_ids, broken: str = "") -> Path:
    """Shards of a split test with a clip for each id; each has another video."""
    samples = [
        (
            Clip(clip_id, clip_id, 0.0, 1.0, (), split="test"),
            b"no video" if clip_id == broken else make_video(first=3 * number, num_frames=6, width=96, height=48),
            "mp4",
        )
        for number, clip_id in enumerate(clip_ids)
    ]
    folder.mkdir()
    places = write_shard(folder / "clips.tar", samples)
    rows = [index_row(clip, place, "clips.tar", FACTS) for (clip, _, _), place in zip(samples, places, strict=True)]
    sizes = {"clips.tar": {"num_bytes": (folder / "clips.tar").stat().st_size, "num_clips": len(rows)}}
    write_index(Place.of(folder), [pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)], sizes)
    return folder


def write_benchmark(folder: Path, name: str, *lines: str) -> Path:
    """A benchmark's file with frames that the tiny model reads; `lines` come in place of its fields of these names."""
    text = "\n".join([f"dataset: {name}", "num_frames: 2", *lines])
    (folder / f"{name}.yaml").write_text(text + "\n")
    return folder / f"{name}.yaml"


def evaluate(tmp_path, shards: Path, benchmark: Path, model_folder: Path, **changes) -> AnnotatedResult:
    job = {
        "checkpoint": str(model_folder), "shards": str(shards), "benchmark": str(benchmark), "batch_size": 4,
        "annotations": str(tmp_path), "output": str(tmp_path / "out"), "resize": "center_crop",
    }  # fmt: skip
    line = run(EvaluateJob.model_validate(job | changes))
    assert line.endswith(f"{tmp_path}/out/{benchmark.stem}.json")
    return AnnotatedResult.from_json((tmp_path / "out" / f"{benchmark.stem}.json").read_text())


def features_of(model_folder: Path, numbers, texts, *, views: ViewConfig, is_raw: bool = False):
    """Features of the videos that `write_clips` writes, one clip at a time, and of texts."""
    model = from_pretrained(model_folder)
    encoder = FeatureEncoder(model, Tokenizer.from_directory(model_folder), batch_size=6, is_raw=is_raw)
    clips = views_of(model, numbers, views)
    return np.stack([encoder.video_features(one) for one in clips]), encoder.text_features(list(texts))


def views_of(model, numbers, views: ViewConfig) -> list[np.ndarray]:
    """The views of the videos that `write_clips` writes."""
    transform = TransformConfig(image_size=model.config.image_size, resize="center_crop")
    return [
        load_views(
            make_video(first=3 * number, num_frames=6, width=96, height=48),
            views=views, num_frames=2, transform=transform,
        )
        for number in numbers
    ]  # fmt: skip


@pytest.mark.ray
def test_retrieval_is_scored_by_the_annotations_and_missing_clips_are_wrong(tmp_path, ray_cluster, model_folder):
    write_ek100(tmp_path)
    names = [f"P01_11_{n}" for n in (3, 1, 9, 2, 5, 4)]  # 9 is of no annotation, 6 is missing
    shards = write_clips(tmp_path / "shards", names, broken="P01_11_5")
    benchmark = write_benchmark(tmp_path, "ek100_mir", "family: multi_instance", "num_clips: 9668")
    result = evaluate(tmp_path, shards, benchmark, model_folder)
    targets = read_targets(load_benchmark(str(benchmark)), tmp_path)
    videos, texts = features_of(model_folder, [1, 3, 0, 5], targets.texts, views=ViewConfig())  # of 1, 2, 3, 4
    places = np.array([0, 1, 2, 3])
    wanted = score_features(load_benchmark(str(benchmark)), targets, videos[:, 0], texts, places, {})
    assert result.metrics == pytest.approx(wanted, abs=1e-6)
    assert result.metrics["mAP_v2t"] < 100 * 4 / 6
    assert (result.protocol.name, result.protocol.num_missing) == ("ek100_mir (4 of 9,668)", 2)
    assert [one["clip_id"] for one in result.missing] == ["P01_11_5", "P01_11_6"]
    assert result.missing[1]["error"] == "not in the shards"
    other = write_benchmark(tmp_path, "egtea", "family: classification", "annotations: egtea")
    folder = str(egtea_folder(tmp_path))
    with pytest.raises(UserError, match=r"of none of the clips of split test: got A-R1-Soup-1-2 there and P01_11_3"):
        evaluate(tmp_path, shards, other, model_folder, annotations=folder)


def egtea_folder(tmp_path: Path) -> Path:
    (tmp_path / "egtea").mkdir(exist_ok=True)
    return write_egtea(tmp_path / "egtea", {"split1": [0, 1], "split2": [1, 2, 3]})


@pytest.mark.ray
def test_the_best_of_windows_and_crops_counts(tmp_path, ray_cluster, model_folder):
    egtea_folder(tmp_path)
    shards = write_clips(tmp_path / "shards", EGTEA_CLIPS)
    benchmark = write_benchmark(tmp_path, "egtea", "family: classification", "annotations: egtea", VIEWS)
    result = evaluate(tmp_path, shards, benchmark, model_folder, annotations=str(tmp_path / "egtea"))
    loaded = load_benchmark(str(benchmark))
    targets = read_targets(loaded, tmp_path / "egtea")
    videos, texts = features_of(model_folder, range(4), targets.texts, views=loaded.views)
    scores = (videos @ texts.T).max(axis=1)
    assert len({one.tobytes() for one in videos[0]}) == 6
    assert result.metrics == measure_file(loaded, targets, {"class": scores})
    assert set(result.metrics) >= {"mean_class_accuracy", "split1/top1", "split2/mean_class_accuracy_with_predicted"}
    assert (result.protocol.views, result.protocol.lists) == ("2 windows of 4 frames x 3, max", "split1, split2")


@pytest.mark.ray
@pytest.mark.slow
def test_the_checkpoints_own_heads_tell_classes_where_it_has_some(tmp_path, ray_cluster, model_folder):
    folder = shutil.copytree(model_folder, tmp_path / "with_heads")
    encoder = from_pretrained(folder).eval()
    torch.manual_seed(0)
    # The head's actions are in another order than the benchmark's, and one is of another clip.
    actions = ("3:1", "10:1", "2:0", "7:2")
    heads = ClassHeads(clip_feature_dim(encoder), {"verb": 12, "noun": 5, "action": 4}).eval()
    for layer in heads.layers.values():
        torch.nn.init.normal_(layer.weight)
    write_class_head(capture_class_head(heads, actions), folder)
    write_ek100(tmp_path)
    names = [f"P01_11_{number}" for number in range(1, 7)]
    shards = write_clips(tmp_path / "shards", names)
    benchmark = write_benchmark(tmp_path, "ek100_cls", "family: classification", "annotations: ek100", VIEWS)
    result = evaluate(tmp_path, shards, benchmark, folder)
    loaded = load_benchmark(str(benchmark))
    targets = read_targets(loaded, tmp_path)
    views = views_of(encoder, range(6), loaded.views)
    with torch.no_grad():
        logits = [Classifier(encoder, heads).classify(torch.from_numpy(one)) for one in views]
    outputs = {kind: np.stack([one[kind].numpy() for one in logits]) for kind in heads.sizes}
    means = {name: values.mean(axis=1, keepdims=True) for name, values in outputs.items()}  # whatever views.pool says
    scores = head_scores(targets, means, actions=actions)
    assert result.metrics == pytest.approx(measure_file(loaded, targets, scores), abs=1e-9)
    assert (result.protocol.score, result.protocol.templates) == ("head", ())
    assert result.protocol.views == "2 windows of 4 frames x 3, mean"
    assert {"verb_top1", "noun_top1", "action_top1"} <= set(result.metrics)
    cosine = write_benchmark(tmp_path, "cosine", "family: classification", "annotations: ek100", "score: cosine")
    assert evaluate(tmp_path, shards, cosine, folder).protocol.score == "cosine"
    wanted = write_benchmark(tmp_path, "heads", "family: classification", "annotations: ek100", "score: head")
    with pytest.raises(UserError, match="the checkpoint has no heads of classes: got .*; set score: cosine"):
        evaluate(tmp_path, shards, wanted, model_folder)


def test_heads_of_other_classes_are_told_before_ray_starts(tmp_path, model_folder):
    folder = shutil.copytree(model_folder, tmp_path / "with_heads")
    heads = ClassHeads(clip_feature_dim(from_pretrained(folder)), {"verb": 12, "noun": 7, "action": 2})
    write_class_head(capture_class_head(heads, ("10:1", "2:0")), folder)
    write_ek100(tmp_path)
    shards = write_clips(tmp_path / "shards", ["OTHER"])  # of no annotation, which is told once Ray runs
    benchmark = write_benchmark(tmp_path, "ek100_cls", "family: classification", "annotations: ek100")
    with pytest.raises(UserError, match="do not fit the benchmark: got verb of 12, noun of 7"):
        evaluate(tmp_path, shards, benchmark, folder)


@pytest.mark.ray
def test_choices_are_scored_raw_where_it_is_asked_for(tmp_path, ray_cluster, model_folder):
    write_egomcq(tmp_path, CHOICES, [(0, 1), (4, 2), (1, 1), (3, 2)])
    names = [ChoiceClip(video, max(0.0, start), end).clip_id for video, start, end in CHOICES]
    shards = write_clips(tmp_path / "shards", names)
    benchmark = write_benchmark(tmp_path, "egomcq", "family: multiple_choice", "score: raw")
    result = evaluate(tmp_path, shards, benchmark, model_folder)
    loaded = load_benchmark(str(benchmark))
    targets = read_targets(loaded, tmp_path)
    videos, texts = features_of(model_folder, range(6), targets.texts, views=ViewConfig(), is_raw=True)
    assert np.ptp(np.linalg.norm(videos[:, 0], axis=1)) > 1e-3
    assert result.metrics == score_features(loaded, targets, videos[:, 0], texts, np.arange(6), {})
    assert (result.protocol.score, result.protocol.num_clips) == ("raw", 6)


def test_without_annotations_it_says_what_is_missing(model_folder):
    job = EvaluateJob(checkpoint=str(model_folder), benchmark="egomcq")
    with pytest.raises(UserError, match="no annotations of egomcq: wanted the folder of its official files; name it"):
        run(job)
