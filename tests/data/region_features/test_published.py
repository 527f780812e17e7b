"""The published files of VGT: HDF5 per split and NumPy per video, and what is wrong with them in one line."""

import h5py
import numpy as np
import pytest

from mama_ray.data.region_features.boxes import box_numbers
from mama_ray.data.region_features.published import PublishedFeatures
from mama_ray.errors import UserError

CLIPS, FRAMES, REGIONS, DIM = 2, 4, 6, 7
SIZE = {"width": 320, "height": 240}


@pytest.fixture
def content() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 100, (3, CLIPS, FRAMES, REGIONS, 2))
    return {
        "feat": rng.normal(size=(3, CLIPS, FRAMES, REGIONS, DIM)).astype(np.float32),
        "bbox": np.concatenate([low, low + 50], axis=-1).astype(np.float32),
        "resnet_features": rng.normal(size=(3, CLIPS, FRAMES, DIM)).astype(np.float32),
    }


def write(folder, content, ids=("4010069381", "b", "c"), drop=None):
    regions, frames = folder / "regions.h5", folder / "frames.h5"
    with h5py.File(regions, "w") as file:
        for name, values in {"ids": list(ids), "feat": content["feat"], "bbox": content["bbox"]}.items():
            if name != drop:
                file[name] = values
    with h5py.File(frames, "w") as file:
        file["ids"] = np.arange(4010069381, 4010069384) if ids[0] == "4010069381" else list(ids)
        file["resnet_features"] = content["resnet_features"]
    return regions, frames


def test_h5_files_give_the_first_regions_with_their_boxes(content, tmp_path):
    """Ids are texts in one file and whole numbers in the other, as they are published."""
    with PublishedFeatures(*write(tmp_path, content), num_regions=5) as features:
        video = features.read("4010069381", **SIZE)
    assert video["regions"].shape == (CLIPS, FRAMES, 5, DIM + 5)
    np.testing.assert_array_equal(video["regions"][..., :DIM], content["feat"][0, :, :, :5])
    np.testing.assert_array_equal(video["regions"][..., DIM:], box_numbers(content["bbox"][0, :, :, :5], **SIZE))
    np.testing.assert_array_equal(video["frames"], content["resnet_features"][0])


def test_numpy_files_per_video_give_the_same(content, tmp_path):
    for row, name in enumerate("abc"):
        np.savez_compressed(tmp_path / f"{name}.npz", feat=content["feat"][row], bbox=content["bbox"][row])
        np.save(tmp_path / f"{name}.npy", content["resnet_features"][row], allow_pickle=False)
    folder = PublishedFeatures(tmp_path, tmp_path, num_regions=6).read("b", **SIZE)
    (tmp_path / "h5").mkdir()
    with PublishedFeatures(*write(tmp_path / "h5", content, ids="abc"), num_regions=6) as features:
        whole = features.read("b", **SIZE)
    assert all(np.array_equal(folder[name], whole[name]) for name in ("frames", "regions"))
    for name in ("z", "../b"):
        with pytest.raises(UserError, match="no features of video"):
            PublishedFeatures(tmp_path, tmp_path, num_regions=6).read(name, **SIZE)
    np.savez(tmp_path / "b.npz", feat=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="'bbox'|damaged"):
        PublishedFeatures(tmp_path, tmp_path, num_regions=6).read("b", **SIZE)


@pytest.mark.parametrize("name", ["ids", "feat", "bbox"])
def test_h5_without_a_key_is_refused(content, tmp_path, name):
    with pytest.raises(UserError, match=f"no dataset '{name}'"):
        PublishedFeatures(*write(tmp_path, content, drop=name), num_regions=5)


def test_features_that_are_no_numbers_are_refused(content, tmp_path):
    content["feat"][0, 0, 0, 0, 0] = np.nan
    content["resnet_features"][1, 0, 0, 0] = np.inf
    with PublishedFeatures(*write(tmp_path, content, ids="abc"), num_regions=5) as features:
        for name in "ab":
            with pytest.raises(UserError, match=f"video {name} hold values that are no numbers: got 1 of"):
                features.read(name, **SIZE)
        features.read("c", **SIZE)


def test_more_regions_than_there_are_and_another_video_are_refused(content, tmp_path):
    with PublishedFeatures(*write(tmp_path, content, ids="abc"), num_regions=10) as features:
        with pytest.raises(UserError, match="fewer regions than the model: got 6, wanted at least 10"):
            features.read("a", **SIZE)
        with pytest.raises(UserError, match="no features of video d"):
            features.read("d", **SIZE)
    with pytest.raises(UserError, match="video twice: got a"):
        PublishedFeatures(*write(tmp_path, content, ids="aab"), num_regions=5)


@pytest.mark.parametrize("num_bytes", [0, 100, 3000])
def test_a_damaged_file_is_told_in_one_line(content, tmp_path, num_bytes):
    regions, frames = write(tmp_path, content)
    regions.write_bytes(regions.read_bytes()[:num_bytes])
    with pytest.raises(UserError, match="regions.h5 is damaged") as told:
        PublishedFeatures(regions, frames, num_regions=5)
    assert "\n" not in str(told.value)


def test_links_out_of_a_file_and_objects_are_not_followed(content, tmp_path):
    regions, frames = write(tmp_path, content)
    with h5py.File(regions, "a") as file:
        del file["feat"]
        file["feat"] = h5py.ExternalLink(str(frames), "resnet_features")
    with pytest.raises(UserError, match="'feat' is no dataset of this file"):
        PublishedFeatures(regions, frames, num_regions=5)
    with h5py.File(regions, "a") as file:
        del file["feat"]
        file["feat"] = ["x", "y", "z"]
    with pytest.raises(UserError, match="'feat' holds no numbers"):
        PublishedFeatures(regions, frames, num_regions=5)


def test_shapes_that_do_not_fit_each_other_are_refused(content, tmp_path):
    content["bbox"] = content["bbox"][:, :, :, :5]
    with (
        PublishedFeatures(*write(tmp_path, content, ids="abc"), num_regions=5) as features,
        pytest.raises(UserError, match="do not fit each other"),
    ):
        features.read("a", **SIZE)


@pytest.mark.parametrize("value", [np.float32(1), h5py.Empty("f4")])
def test_a_dataset_that_is_no_row_of_videos_is_refused(content, tmp_path, value):
    regions, frames = write(tmp_path, content, drop="feat")
    with h5py.File(regions, "a") as file:
        file.create_dataset("feat", data=value)
    with pytest.raises(UserError, match="is no file of features"):
        PublishedFeatures(regions, frames, num_regions=5)


@pytest.mark.parametrize("num_regions", [0, -1])
def test_no_regions_are_refused(content, tmp_path, num_regions):
    with pytest.raises(UserError, match=f"num_regions: got {num_regions}, wanted at least 1"):
        PublishedFeatures(*write(tmp_path, content), num_regions=num_regions)


def _archive(path, **changes: int) -> None:
    """Write an .npz whose entries say of themselves what `changes` say, at these places of their headers."""
    np.savez(path, feat=np.ones(9, np.float32), bbox=np.ones(4, np.float32))
    data = bytearray(path.read_bytes())
    entry = data.find(b"PK\x01\x02")
    for name, value in changes.items():
        place = {"flags": (6, 8), "method": (8, 10)}[name]
        data[place[0]] = data[entry + place[1]] = value
    path.write_bytes(data)


@pytest.mark.parametrize("changes", [{"flags": 1}, {"method": 99}, {"method": 8}, {"method": 14}])
def test_an_archive_that_cannot_be_unpacked_is_one_line(tmp_path, changes):
    """Locked, packed in a way that nobody knows, and said to be packed by two that everybody does."""
    _archive(tmp_path / "v.npz", **changes)
    np.save(tmp_path / "v.npy", np.ones(3, np.float32))
    with pytest.raises(UserError, match=r"v.npz is damaged"):
        PublishedFeatures(tmp_path, tmp_path, num_regions=1).read("v", **SIZE)


@pytest.mark.parametrize(
    "feat", [np.full(3, "a"), np.ones(3, complex), np.zeros(3, "M8[s]"), np.zeros(3, [("a", "f4")])]
)
def test_what_is_no_number_is_refused(tmp_path, feat):
    np.savez(tmp_path / "v.npz", feat=feat, bbox=np.ones(4, np.float32))
    np.save(tmp_path / "v.npy", np.ones(3, np.float32))
    with pytest.raises(UserError, match="v.npz holds no numbers"):
        PublishedFeatures(tmp_path, tmp_path, num_regions=1).read("v", **SIZE)


def test_an_archive_in_the_place_of_an_array_is_refused(content, tmp_path):
    np.savez(tmp_path / "v.npz", feat=content["feat"][0], bbox=content["bbox"][0])
    (tmp_path / "v.npy").write_bytes((tmp_path / "v.npz").read_bytes())
    features = PublishedFeatures(tmp_path, tmp_path, num_regions=1)
    with pytest.raises(UserError, match="v.npy holds no numbers: got NpzFile"):
        features.read("v", **SIZE)
    (tmp_path / "v.npy").write_bytes(_header_of(1 << 50))
    with pytest.raises(UserError, match="v.npy is damaged"):
        features.read("v", **SIZE)
    assert "a" * 300 not in features  # longer than a file's name can be


def _header_of(num_values: int) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({num_values},), }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
