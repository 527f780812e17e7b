"""Search on Ray Serve: the same answers as in one process, also while replicas are killed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.serving.replicas import ReplicaConfig
from mama_ray.search.embedding_parts import IDENTITY_NAME
from mama_ray.search.embedding_table import EmbeddingTable
from mama_ray.search.index import ExactIndex, Query
from mama_ray.search.towers import Towers
from mama_ray.storage.places import Place
from tests.data.video.video_factory import make_video
from tests.encoder.tiny_encoder import write_model
from tests.search.made_table import make_rows, unit, write_table

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CONFIG = ReplicaConfig(num_towers=1, tower_cpus=0.2, num_shares=2, num_replicas=2, share_cpus=0.2, max_batch_size=8)
NUM_CLIPS = 500


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def local(model) -> Towers:
    return Towers.load(str(model), num_processes=1)


@pytest.fixture(scope="module")
def index_folder(local, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    write_table(Place.of(folder), make_rows(NUM_CLIPS, local.dim), local.dim, part_clips=50)
    identity = folder / IDENTITY_NAME
    identity.write_text(identity.read_text().replace("a" * 64, local.model_hash))
    return folder


@pytest.fixture(scope="module")
def deployed(ray_cluster, model, index_folder) -> Iterator[tuple]:
    from ray import serve

    from mama_ray.orchestration.serving.cluster import open_on_cluster

    yield open_on_cluster(str(model), str(index_folder), CONFIG)
    serve.shutdown()


def test_the_answers_are_those_of_one_process(deployed, local, index_folder):
    towers, index = deployed
    assert (towers.model_hash, towers.dim) == (local.model_hash, local.dim)
    video = make_video(num_frames=7, width=64, height=48)
    np.testing.assert_allclose(towers.embed_video(video), local.embed_video(video), atol=1e-5)
    texts = [f"a thing {number}" for number in range(20)]
    np.testing.assert_allclose(towers.embed_texts(texts), local.embed_texts(texts), atol=1e-5)
    exact, rng = ExactIndex(EmbeddingTable.open(str(index_folder))), np.random.default_rng(0)
    assert index.clip_ids.to_pylist() == exact.clip_ids.to_pylist()
    for number in range(20):
        query = Query(
            plus=unit(rng.normal(size=(2, local.dim))),
            mixture=number % 3 / 2,
            allowed=None if number % 2 else rng.random(NUM_CLIPS) < 0.3,
            limit=10,
            offset=5 * (number % 4),
        )
        assert index.search(query) == exact.search(query)
        assert index.count(query) == exact.count(query)
    name = exact.clip_ids[3].as_py()
    np.testing.assert_array_equal(index.video_feature(name), exact.video_feature(name))
    assert index.video_feature("no such clip") is None


def test_a_video_that_is_too_large_to_be_held_in_memory_is_refused_before_it_is_read(deployed, tmp_path):
    towers, _ = deployed
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate((256 << 20) + 1)
    with pytest.raises(UserError, match="too large to be sent.*wanted at most 256 MiB"):
        towers.embed_video(tmp_path / "large.mp4")


def test_no_search_fails_while_a_replica_is_killed(deployed, index_folder, local):
    """Ten clients ask one after the other; a replica of a share dies among them."""
    _, index = deployed
    exact, rng = ExactIndex(EmbeddingTable.open(str(index_folder))), np.random.default_rng(1)
    queries = [Query(plus=[unit(rng.normal(size=local.dim))], limit=5) for _ in range(100)]
    with ThreadPoolExecutor(10) as clients:
        answers = [clients.submit(index.search, query) for query in queries[:50]]
        kill_a_replica("share-0")
        answers += [clients.submit(index.search, query) for query in queries[50:]]
        found = [answer.result(timeout=120) for answer in answers]
    assert found == [exact.search(query) for query in queries]


def kill_a_replica(deployment: str) -> None:
    import ray
    from ray.util import list_named_actors

    named = [one["name"] for one in list_named_actors(all_namespaces=True) if one["namespace"] == "serve"]
    replicas = [name for name in named if f"{deployment}#" in name]
    assert len(replicas) == 2, named
    ray.kill(ray.get_actor(replicas[0], namespace="serve"), no_restart=True)


def test_what_is_wrong_is_told_as_in_one_process(deployed, index_folder, tmp_path):
    from mama_ray.orchestration.serving.cluster import open_on_cluster

    towers, index = deployed
    with pytest.raises(UserError, match="cannot be used"):
        towers.embed_video(b"no video")
    with pytest.raises(UserError, match="whole characters"):
        towers.embed_texts(["\ud800"])
    with pytest.raises(UserError, match="nothing to look for"):
        index.search(Query(plus=[]))
    with pytest.raises(UserError, match="filter of another index"):
        index.search(Query(plus=[np.ones(towers.dim)], allowed=np.ones(3, bool)))
    other = write_model(tmp_path / "other", seed=3)
    with pytest.raises(UserError, match="of another model"):
        open_on_cluster(str(other), str(index_folder), CONFIG)
