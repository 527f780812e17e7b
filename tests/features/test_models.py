"""Frame and region features against the models' own output and a forward pass by torchvision's names."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mama_ray.errors import UserError
from mama_ray.features.frames import from_torchvision, load_frame_encoder
from mama_ray.features.pictures import PictureInput, read_picture_input
from mama_ray.features.regions import load_region_detector, pool_boxes
from tests.features.tiny_models import save_detector, save_resnet, torchvision_forward, torchvision_state


def pictures(num: int = 3, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def as_squares(frames: np.ndarray) -> torch.Tensor:
    return PictureInput(height=224, width=224, mode="bicubic").prepare(frames)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_torchvisions_file_gives_torchvisions_features(tmp_path, suffix):
    state, path = torchvision_state(), tmp_path / f"resnet{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    encoder = load_frame_encoder(path)
    assert encoder.dim == 64
    frames = pictures(9)  # more than go at a time
    wanted = torchvision_forward(state, as_squares(frames))
    torch.testing.assert_close(torch.from_numpy(encoder(frames)), wanted, rtol=1e-4, atol=1e-5)


def test_a_folder_of_transformers_gives_its_own_features_without_its_classifier(tmp_path):
    model = save_resnet(tmp_path)
    encoder = load_frame_encoder(tmp_path)
    with torch.no_grad():
        wanted = model.resnet(as_squares(pictures())).pooler_output.flatten(1)
    torch.testing.assert_close(torch.from_numpy(encoder(pictures())), wanted, rtol=1e-5, atol=1e-6)


def test_resnet_101_has_the_known_number_of_parameters():
    """42,500,160, the number of torchvision's without its classifier, under keys that all have a place."""
    from transformers import ResNetConfig, ResNetModel

    with torch.device("meta"):
        model = ResNetModel(ResNetConfig(depths=[3, 4, 23, 3]))
        theirs = torchvision_state(depths=(3, 4, 23, 3), width=64)
    assert sum(parameter.numel() for parameter in model.parameters()) == 42_500_160
    ours = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert {key: tuple(t.shape) for key, t in from_torchvision(theirs, "resnet101").items()} == ours


@pytest.mark.parametrize("change", ["extra", "missing", "shape", "nested"])
def test_a_file_that_is_no_resnet_is_refused_by_name(tmp_path, change):
    state: dict = torchvision_state()
    name = "layer2.1.conv2.weight"
    if change == "extra":
        state["layer1.0.se.weight"] = torch.zeros(1)
    elif change == "missing":
        del state[name]
    elif change == "shape":
        state[name] = torch.zeros(3)
    else:
        state = {"state_dict": state}
    torch.save(state, tmp_path / "resnet.pth")
    wanted = {"extra": "layer1.0.se", "nested": "flat state dict"}.get(change, "stages.1.layers.1.layer.1")
    with pytest.raises(UserError, match=wanted):
        load_frame_encoder(tmp_path / "resnet.pth")


@pytest.mark.parametrize("kind", ["detr", "rt_detr"])
def test_regions_are_the_surest_boxes_with_the_map_inside_them(tmp_path, kind):
    model = save_detector(tmp_path, kind)
    size = {"shortest_edge": 96, "longest_edge": 200} if kind == "detr" else {"height": 64, "width": 64}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": size, "do_normalize": kind == "detr"}))
    detector = load_region_detector(tmp_path, num_regions=5)
    assert detector.dim == 24
    frames = pictures(6)
    found = detector(frames)
    assert found.features.shape == (6, 5, 24) and found.boxes.shape == (6, 5, 4)
    given = (
        PictureInput(short_side=96, long_side=200)
        if kind == "detr"
        else PictureInput(height=64, width=64, mean=(0.0,) * 3, std=(1.0,) * 3)
    )
    pixels = given.prepare(frames)
    assert pixels.shape[-2:] == ((96, 128) if kind == "detr" else (64, 64))
    with torch.no_grad():
        out = model(pixel_values=pixels)
        maps = model.model.backbone(pixels, torch.ones(pixels[:, 0].shape, dtype=torch.long))[-1][0]
    scores = out.logits.softmax(-1)[..., :-1] if kind == "detr" else out.logits.sigmoid()
    for frame in range(6):
        order = scores[frame].amax(dim=-1).argsort(descending=True)[:5]
        x, y, w, h = out.pred_boxes[frame, order].unbind(-1)
        boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=-1).clamp(0, 1)
        torch.testing.assert_close(torch.from_numpy(found.boxes[frame]), boxes, rtol=1e-4, atol=1e-5)
        wanted = pool_boxes(maps[frame : frame + 1], boxes[None])[0]
        torch.testing.assert_close(torch.from_numpy(found.features[frame]), wanted, rtol=1e-3, atol=1e-4)


def test_the_map_in_a_box_equals_a_loop_over_points():
    maps = torch.randn(2, 3, 10, 14).double()
    corners = torch.rand(2, 4, 2, 2).double().sort(dim=2).values
    boxes = corners.flatten(2)
    for frame in range(2):
        for r, (x1, y1, x2, y2) in enumerate(boxes[frame].tolist()):
            total = torch.zeros(3).double()
            for i in range(7):
                for j in range(7):
                    x, y = x1 + (x2 - x1) * (i + 0.5) / 7, y1 + (y2 - y1) * (j + 0.5) / 7
                    total += bilinear(maps[frame], x * 14 - 0.5, y * 10 - 0.5)
            torch.testing.assert_close(pool_boxes(maps, boxes)[frame, r], total / 49)


def bilinear(picture: torch.Tensor, x: float, y: float) -> torch.Tensor:
    height, width = picture.shape[1:]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    a, b = x - left, y - top
    upper = (1 - a) * picture[:, top, left] + a * picture[:, top, right]
    return (1 - b) * upper + b * ((1 - a) * picture[:, bottom, left] + a * picture[:, bottom, right])


def test_more_regions_than_queries_and_other_models_are_refused(tmp_path):
    save_detector(tmp_path / "detr", num_queries=4)
    save_resnet(tmp_path / "resnet")
    with pytest.raises(UserError, match="fewer regions than asked for: got 4, wanted 5"):
        load_region_detector(tmp_path / "detr", num_regions=5)
    with pytest.raises(UserError, match="no detector known here: got resnet"):
        load_region_detector(tmp_path / "resnet", num_regions=5)
    with pytest.raises(UserError, match="is no ResNet: got detr"):
        load_frame_encoder(tmp_path / "detr")
    config = json.loads((tmp_path / "resnet/config.json").read_text())
    (tmp_path / "resnet/config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(UserError, match="code of its own"):
        load_frame_encoder(tmp_path / "resnet")


@pytest.mark.parametrize(
    ("content", "size"),
    [
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, (800, 1066)),
        ({"size": 600, "max_size": 700}, (525, 700)),
        ({"size": {"height": 640, "width": 640}}, (640, 640)),
    ],
)
def test_sizes_are_read_in_all_ways_that_files_have_them(tmp_path, content, size):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    assert read_picture_input(tmp_path, PictureInput(short_side=10)).size_of(480, 640) == size


@pytest.mark.parametrize("content", [{"size": {"height": 0}}, {"size": {"edge": 5}}, {"image_std": [0, 1, 1]}])
def test_a_size_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="preprocessor_config.json is not usable"):
        read_picture_input(tmp_path, PictureInput(short_side=10))


def test_a_torchvision_file_of_whole_numbers_or_without_names_is_refused(tmp_path):
    path, state = tmp_path / "resnet.pth", torchvision_state()
    torch.save(state | {"conv1.weight": state["conv1.weight"].to(torch.int8)}, path)
    with pytest.raises(UserError, match="has whole numbers for weights: got embedder"):
        load_frame_encoder(path)
    torch.save(state | {1: torch.ones(1)}, path)
    with pytest.raises(UserError, match="is not a flat state dict"):
        load_frame_encoder(path)
