"""Search on Ray Serve: the app's second way to run, for more queries or more clips than one process takes.

The app itself stays one process behind its doorkeeper; Serve opens no port. The encoder is a deployment that batches
texts; the index is a deployment for each share of the table, and the answer is merged of theirs. A replica that dies
costs a query a second try.
"""

import asyncio
import atexit
import heapq
import logging
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from mama_ray.errors import UserError
from mama_ray.masking import masked_errors
from mama_ray.orchestration.cluster.connect import connect, start_worker_logging
from mama_ray.orchestration.cluster.entry import find_user_error
from mama_ray.orchestration.cluster.placement import Share, require_room
from mama_ray.orchestration.serving.replicas import ReplicaConfig
from mama_ray.search.approximate import IndexKind, build_index
from mama_ray.search.embedding_parts import read_identity, read_summary
from mama_ray.search.embedding_table import EmbeddingTable, read_clip_ids, require_model
from mama_ray.search.index import Hit, Query
from mama_ray.search.towers import Towers
from mama_ray.storage.places import Place

logger = logging.getLogger(__name__)

_BATCH_WAIT_S = 0.005
_TRIES, _FIRST_WAIT_S = 6, 0.2  # together longer than Serve needs to notice that a replica is gone
_TIMEOUT_S = 120.0
_LARGEST_VIDEO = 256 << 20  # it is held whole here, on its way and in the replica
_QUIET = {"enable_access_log": False, "log_level": "WARNING"}  # else each query is a line of the app's own log
_MOST_QUERIES = 64  # at a time in one replica; the others wait in order


class TowersReplica:
    """The encoder in an actor of Serve; texts of several queries are encoded together."""

    @masked_errors
    def __init__(self, source: str, batch_size: int, use_gpu: bool) -> None:
        start_worker_logging()
        device = "cuda" if use_gpu else "cpu"
        self._towers = Towers.load(source, device=device, batch_size=batch_size, num_processes=1)
        self.embed_texts.set_max_batch_size(batch_size)  # ty: ignore[missing-attribute]

    async def describe(self) -> tuple[str, str, int]:
        """Return model_hash, source and dim."""
        return self._towers.model_hash, self._towers.source, self._towers.dim

    @serve.batch(batch_wait_timeout_s=_BATCH_WAIT_S)
    async def embed_texts(self, texts: list[str]) -> list[np.ndarray]:
        """Return the feature of each text."""
        return list(self._towers.embed_texts(texts))

    async def embed_video(self, video: bytes) -> np.ndarray:
        """Return the feature of a video, as `Towers.embed_video`; texts do not wait for it."""
        return await asyncio.to_thread(self._towers.embed_video, video)


class ShareReplica:
    """A share of the index in an actor of Serve; rows are those of the whole table."""

    @masked_errors
    def __init__(self, uri: str, number: int, num_shares: int, kind: IndexKind) -> None:
        start_worker_logging()
        self._index = build_index(EmbeddingTable.open(uri, (number, num_shares)), kind)

    def rows(self) -> range:
        """Return which rows of the whole table this share has."""
        table = self._index.table
        return range(table.first_row, table.first_row + len(table))

    def search(self, query: Query, allowed: bytes | None) -> list[Hit]:
        """Return the best of this share, as many as are wanted of all; `allowed` has a bit for each of its rows."""
        first = self._index.table.first_row
        return [replace(hit, row=first + hit.row) for hit in self._index.search(self._own(query, allowed))]

    def count(self, query: Query, allowed: bytes | None) -> int:
        """Return how many clips of this share could be found."""
        return self._index.count(self._own(query, allowed))

    def video_feature(self, clip_id: str) -> np.ndarray | None:
        """Return a clip's feature, None where this share does not have it."""
        return self._index.video_feature(clip_id)

    def _own(self, query: Query, allowed: bytes | None) -> Query:
        mask = None
        if allowed is not None:
            mask = np.unpackbits(np.frombuffer(allowed, np.uint8), count=len(self.rows())).view(bool)
        return replace(query, allowed=mask, limit=query.num_wanted, offset=0)


class ClusterTowers:
    """The encoder of a cluster, used as `search.towers.Towers`. May be used from several threads."""

    def __init__(self, replicas: DeploymentHandle) -> None:
        self._replicas = replicas
        self.model_hash, self.source, self.dim = _answers([replicas], "describe")[0]

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode sentences, float32 (len(texts), dim), unit norm. UserError for what is no text."""
        for text in texts:  # one that is none must not spoil the batch of others
            if text != text.encode(errors="replace").decode():
                raise UserError("texts to encode", got=ascii(text), wanted="whole characters")
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        asked = [self._replicas.embed_texts.remote(text) for text in texts]  # all at once, to be encoded together
        features = [
            _result(self._replicas, "embed_texts", (text,), one) for text, one in zip(texts, asked, strict=True)
        ]
        return np.stack(features)

    def embed_video(self, video: str | Path | bytes) -> np.ndarray:
        """Encode a file or its bytes, float32 (dim,). UserError, with the reason, for one that cannot be used."""
        num_bytes = len(video) if isinstance(video, bytes) else Path(video).stat().st_size
        if num_bytes > _LARGEST_VIDEO:
            raise UserError(
                "the example is too large to be sent to a replica of the encoder",
                got=f"{num_bytes >> 20} MiB",
                wanted=f"at most {_LARGEST_VIDEO >> 20} MiB",
                remedy="cut it to the part that the clips should be like",
            )
        data = video if isinstance(video, bytes) else Path(video).read_bytes()
        return _answers([self._replicas], "embed_video", data)[0]


class ClusterIndex:
    """The index of a cluster, a `search.index.SearchIndex`. May be used from several threads."""

    def __init__(self, shares: Sequence[DeploymentHandle], clip_ids: pa.LargeStringArray) -> None:
        self._shares, self.clip_ids = list(shares), clip_ids
        self._rows: list[range] = _answers(self._shares, "rows")

    @property
    def share_sizes(self) -> list[int]:
        """How many clips each share has."""
        return [len(rows) for rows in self._rows]

    def search(self, query: Query) -> list[Hit]:
        """Return what `ExactIndex.search` of the whole table does."""
        found = self._asked(query, "search")
        merged = heapq.merge(*found, key=lambda hit: (-hit.similarity, hit.clip_id))
        return list(islice(merged, query.offset, query.num_wanted))

    def count(self, query: Query) -> int:
        """Return how many clips could be found if the limit were large enough."""
        return sum(self._asked(query, "count"))

    def video_feature(self, clip_id: str) -> np.ndarray | None:
        """Return a clip's feature, float32 (dim,); None where there is no such clip, or it has none."""
        found = _answers(self._shares, "video_feature", clip_id)
        return next((feature for feature in found if feature is not None), None)

    def _asked(self, query: Query, method: str) -> list:
        """Ask each share a query, with its own part of the filter.

        Raises UserError for what a share alone could not see.
        """
        query.check_page()
        if query.allowed is None:
            return _answers(self._shares, method, query, None)
        if np.shape(query.allowed) != (len(self.clip_ids),):
            raise UserError("a filter of another index", got=np.shape(query.allowed), wanted=(len(self.clip_ids),))
        # A bit a clip, and to each share its own: of ten million clips the filter itself would be 10 MB for everyone.
        parts = [np.packbits(query.allowed[rows.start : rows.stop]).tobytes() for rows in self._rows]
        plain = replace(query, allowed=None)
        return _each_answers(self._shares, method, [(plain, part) for part in parts])


def open_on_cluster(
    run: str, index: str, config: ReplicaConfig, kind: IndexKind = "exact"
) -> tuple[ClusterTowers, ClusterIndex]:
    """Deploy encoder and index and wait until they answer. UserError where they cannot be used together."""
    identity = read_identity(Place.of(index))
    read_summary(Place.of(index))  # one that is not finished is told before Ray starts
    connect()
    _fit_replicas(config, is_cluster="RAY_ADDRESS" in os.environ)
    start_serve()
    arguments = (run, config.max_batch_size, config.tower_gpus > 0)
    deployment = _deployment("towers", TowersReplica, config.num_towers, config.tower_cpus, config.tower_gpus)
    towers = ClusterTowers(_run([deployment], [arguments])[0])
    require_model(identity, towers.model_hash)
    found = deploy_index(index, config, kind)
    logger.info("search runs on Ray Serve: %d replicas of the encoder, %d shares of the index with %d replicas each",
                config.num_towers, config.num_shares, config.num_replicas)  # fmt: skip
    return towers, found


def start_serve() -> None:
    """Start Ray Serve, where it does not run yet, without a port."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config=_QUIET)


def deploy_index(index: str, config: ReplicaConfig, kind: IndexKind = "exact") -> ClusterIndex:
    """Deploy the shares of an index on a Ray Serve that runs, and wait until they answer."""
    clip_ids = read_clip_ids(index)
    numbers = range(config.num_shares)
    shares = [
        _deployment(f"share-{number}", ShareReplica, config.num_replicas, config.share_cpus) for number in numbers
    ]
    handles = _run(shares, [(index, number, config.num_shares, kind) for number in numbers])
    return ClusterIndex(handles, clip_ids)


def _delete(name: str) -> None:
    """End what was deployed, where its Ray is still there."""
    if ray.is_initialized() and name in serve.status().applications:
        serve.delete(name)


def _fit_replicas(config: ReplicaConfig, *, is_cluster: bool) -> None:
    """Raise UserError where the replicas can never be had; a cluster may grow, so there it is only a warning."""
    towers = {"CPU": config.num_towers * config.tower_cpus, "GPU": config.num_towers * config.tower_gpus}
    shares = {"CPU": config.num_shares * config.num_replicas * config.share_cpus}
    require_room(
        "search on Ray Serve", [Share(towers, {}), Share(shares, {})], is_cluster=is_cluster, remedy="lower cluster.*"
    )


def _deployment(part: str, replica: type, num_replicas: int, cpus: float, gpus: float = 0.0) -> serve.Deployment:
    """Return the deployment of a class, under a name of its own."""
    return serve.deployment(
        name=f"mama_ray-{uuid.uuid4().hex[:8]}-{part}",  # a cluster may serve other apps, and another one of these
        num_replicas=num_replicas,
        max_ongoing_requests=_MOST_QUERIES,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        health_check_period_s=5.0,
        graceful_shutdown_timeout_s=5.0,
        logging_config=_QUIET,  # what Serve was started with is not passed on
    )(replica)


def _run(deployments: Sequence[serve.Deployment], arguments: Sequence[tuple]) -> list[DeploymentHandle]:
    """Run each as an application of its own, all starting at once, and wait for them.

    Raises UserError where a replica cannot start.
    """
    targets = []
    for one, own in zip(deployments, arguments, strict=True):
        atexit.register(_delete, one.name)  # it outlives the process that made it
        targets.append(serve.RunTarget(one.bind(*own), one.name, route_prefix=None))
    try:
        return serve.run_many(targets)
    except RuntimeError as error:  # what Serve makes of any error in a replica's start
        names = f"{deployments[0].name} or another" if len(deployments) > 1 else deployments[0].name
        raise UserError(f"search cannot run on Ray Serve: {names} does not start", got=error) from error


def _answers(replicas: Sequence[DeploymentHandle], method: str, *arguments: Any) -> list:
    """Ask each deployment at once and return the answers; one whose replica died is asked again.

    Raises UserError where a replica does.
    """
    return _each_answers(replicas, method, [arguments] * len(replicas))


def _each_answers(replicas: Sequence[DeploymentHandle], method: str, arguments: Sequence[tuple]) -> list:
    """Do as `_answers` with arguments of its own for each deployment."""
    asked = [getattr(one, method).remote(*own) for one, own in zip(replicas, arguments, strict=True)]
    return [_result(one, method, *rest) for one, *rest in zip(replicas, arguments, asked, strict=True)]


def _result(replicas: DeploymentHandle, method: str, arguments: Sequence[Any], response: Any) -> Any:
    for number in range(_TRIES):
        try:
            return response.result(timeout_s=_TIMEOUT_S)
        except RayTaskError as error:  # what the replica raised, which it would raise again
            known = find_user_error(error)
            if known is None:
                raise
            raise known from None
        except (RayError, RayServeException) as error:
            if number == _TRIES - 1:
                raise
            logger.warning("a replica did not answer (%s): asking again", type(error).__name__)
            time.sleep(_FIRST_WAIT_S * 2**number)
            response = getattr(replicas, method).remote(*arguments)
    raise AssertionError("unreachable")
