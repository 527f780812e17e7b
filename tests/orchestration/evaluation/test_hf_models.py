"""`--checkpoint hf:FOLDER` measures folders of transformers on the embedded corpus, as transformers would."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mama_ray
from mama_ray.data.index import read_index, select_split
from mama_ray.data.reading import read_payloads
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.data.tokenizer import Tokenizer
from mama_ray.data.video.loading import load_clip_frames
from mama_ray.data.video.transforms import TransformConfig
from mama_ray.errors import UserError
from mama_ray.evaluation.retrieval import retrieval_metrics
from mama_ray.models.feature_encoder import FeatureEncoder
from mama_ray.orchestration.evaluation.job import EvaluateJob
from mama_ray.orchestration.evaluation.model import find_model
from mama_ray.orchestration.evaluation.run import evaluate, load_benchmark
from mama_ray.storage.places import Place
from tests.data.test_foreign_tokenizer import write_siglip2
from tests.models.hf_encoder.hf_models import build_sized
from tests.orchestration.evaluation.test_run import write_corpus

NUM_TEST = 16
CORPUS = CorpusConfig(num_train=2, num_meta=0, num_val=0, num_test=NUM_TEST)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    made = [generate_clip(CORPUS, "test", number) for number in range(NUM_TEST)]
    folder = tmp_path_factory.mktemp("embedded") / "shards"
    write_corpus(folder, [(one.clip, one.video) for one in made])
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = Tokenizer.train(["a red green blue circle square moves left right"] * 3, 514, 16)
    build_sized("clip", tokenizer.vocab_size, 16, eos=tokenizer.eot_id).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def siglip2_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("siglip2")
    write_siglip2(folder)
    vocab_size = Tokenizer.from_directory(folder).vocab_size
    build_sized("siglip2", vocab_size, 12).save_pretrained(folder)
    return folder


def by_transformers(kind: str, folder: Path, shards: Path, transform: TransformConfig) -> dict[str, float]:
    """Compute the metrics by a loop over clips with transformers' model, tokenizer and mean over frames."""
    import transformers

    names = {"clip": "CLIPModel", "siglip2": "Siglip2Model"}
    model = getattr(transformers, names[kind]).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    table = select_split(read_index(Place.of(shards)), "test").to_pylist()
    videos, texts = [], []
    for clip in table:
        data = (shards / clip["shard"]).read_bytes()[clip["offset"] : clip["offset"] + clip["num_bytes"]]
        frames = torch.from_numpy(load_clip_frames(data, num_frames=12, transform=transform)).permute(0, 3, 1, 2)
        if kind == "clip":
            mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
            pixels = (frames / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
            inputs = {"pixel_values": pixels}
        else:
            pixels = (frames / 255 - 0.5) / 0.5
            patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
            shapes = torch.tensor([[6, 6]] * len(patches))
            ones = torch.ones(patches.shape[:2], dtype=torch.long)
            inputs = {"pixel_values": patches, "pixel_attention_mask": ones, "spatial_shapes": shapes}
        length = 16 if kind == "clip" else 12
        ids = tokenizer([clip["captions"][0]["text"]], padding="max_length", truncation=True, max_length=length)
        with torch.no_grad():
            images = F.normalize(model.get_image_features(**inputs).pooler_output, dim=-1)
            words = model.get_text_features(torch.tensor(ids["input_ids"])).pooler_output
        videos.append(F.normalize(images.mean(0), dim=-1).numpy())
        texts.append(F.normalize(words[0], dim=-1).numpy())
    ids = [clip["clip_id"] for clip in table]
    return retrieval_metrics(np.stack(videos), np.stack(texts), ids, ids)


HOW = {"clip": ("center_crop", "bicubic"), "siglip2": ("squash", "bilinear")}


@pytest.mark.parametrize("kind", ["clip", "siglip2"])
def test_what_evaluation_embeds_with_gives_the_metrics_of_transformers(shards, clip_folder, siglip2_folder, kind):
    folder = {"clip": clip_folder, "siglip2": siglip2_folder}[kind]
    model = find_model(f"hf:{folder}", load_benchmark("own"))
    resize, interpolation = HOW[kind]
    assert model.transform == TransformConfig(image_size=48, resize=resize, interpolation=interpolation)
    encoder = FeatureEncoder.load(model.uri, text_length=model.text_length, batch_size=8)
    table = select_split(read_index(Place.of(shards)), "test").to_pylist()
    payloads = read_payloads(Place.of(shards), table)
    frames = [load_clip_frames(one, num_frames=model.num_frames, transform=model.transform) for one in payloads]
    videos = np.concatenate([encoder.video_features(np.stack(frames[at : at + 8])) for at in (0, 8)])
    ids = [clip["clip_id"] for clip in table]
    texts = encoder.text_features([clip["captions"][0]["text"] for clip in table])
    found = retrieval_metrics(videos, texts, ids, ids)
    assert found == pytest.approx(by_transformers(kind, folder, shards, model.transform))


@pytest.mark.ray
@pytest.mark.parametrize("kind", ["clip", pytest.param("siglip2", marks=pytest.mark.slow)])
def test_a_folder_of_transformers_is_measured_as_transformers_computes_it(
    ray_cluster, shards, clip_folder, siglip2_folder, tmp_path, kind
):
    folder = {"clip": clip_folder, "siglip2": siglip2_folder}[kind]
    (tmp_path / "small.yaml").write_text(json.dumps({"dataset": "small", "split": "test"}))
    job = EvaluateJob(
        checkpoint=f"hf:{folder}", shards=str(shards), output=str(tmp_path), benchmark=str(tmp_path / "small.yaml"),
        batch_size=5,
    )  # fmt: skip
    plain, _ = evaluate(job).file.results
    transform = TransformConfig(image_size=48, resize=HOW[kind][0], interpolation=HOW[kind][1])
    assert plain.metrics == pytest.approx(by_transformers(kind, folder, shards, transform))
    protocol = plain.protocol
    assert (protocol.num_videos, protocol.num_frames, protocol.image_size) == (NUM_TEST, 12, 48)
    assert protocol.resize == ("center_crop" if kind == "clip" else "squash, bilinear")
    assert protocol.text_length == (16 if kind == "clip" else 12)
    assert plain.checkpoint.path == f"hf:{folder}"
    assert plain.checkpoint.selection == "given by its path"


def test_a_model_of_python_is_the_same_one(siglip2_folder, clip_folder):
    for folder, dim in ((siglip2_folder, 16), (clip_folder, 12)):
        encoder = mama_ray.load_encoder(f"hf:{folder}", num_processes=1)
        assert encoder.encode_texts(["a red circle", "a blue square"]).shape == (2, dim)
        assert encoder.transform.image_size == 48
    assert mama_ray.load_encoder(f"hf:{clip_folder}").transform.resize == "center_crop"
    assert mama_ray.load_encoder(siglip2_folder).transform.interpolation == "bilinear"


def test_results_lie_beside_a_folder_and_in_runs_for_a_hub_id(siglip2_folder, tmp_path):
    benchmark = load_benchmark("own")
    model = find_model(f"hf:{siglip2_folder}", benchmark)
    assert (model.home, model.num_frames, model.text_length) == (str(siglip2_folder), 12, 12)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="holds no dual encoder of transformers"):
        find_model(f"hf:{tmp_path}", benchmark)
    with pytest.raises(UserError, match="no such model: got no folder here"):
        find_model("hf:no folder here", benchmark)
