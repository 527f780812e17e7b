"""How long queries take, and how much memory replicas, where shares of a large index lie in replicas on Ray Serve.

    .venv/bin/python benchmarks/search_replicas.py --clips 10000000 [--dim 256] [--shares 2] [--storage FOLDER]

The deployment is that of the app, asked as the app asks it; only encoder and catalog are left out. The table, 5 GB for
ten million clips without captions, is written in parts below --storage and deleted afterwards; with --table it is kept
there for the next call. Prints JSON: answers compared with brute force in float64 over the files, milliseconds of a
query by what is asked (median, 95th percentile, and CPU time of a replica, which other work on the machine changes
less), clients at once, and the memory by which a replica grows that opens its share and searches it, over the bytes of
the share's features.
"""

import heapq
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psutil
import ray
import tyro
from ray import serve
from search_cases.tables import percentiles, write_random_table

from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.serving.cluster import ClusterIndex, deploy_index, start_serve
from mama_ray.orchestration.serving.replicas import ReplicaConfig
from mama_ray.search.embedding_parts import find_summary, read_identity, read_part, read_summary
from mama_ray.search.index import Hit, Query
from mama_ray.storage.places import Place

_PART_CLIPS = 8192  # more than jobs/index.py puts in a file: opening files is not what is measured
_SMALL = 100  # clips of a share: what a replica takes before it opens one that matters


def main(
    clips: int = 1_000_000,
    dim: int = 256,
    shares: int = 2,
    queries: int = 50,
    clients: int = 10,
    compared: int = 5,  # of each kind
    storage: str | None = None,
    table: str | None = None,
) -> None:
    """Measure and print one JSON object; ends with an error where an answer is not that of brute force."""
    result: dict = {"clips": clips, "dim": dim, "shares, each a replica": shares}
    with tempfile.TemporaryDirectory(dir=storage) as folder:
        place = Place.of(table or f"{folder}/table")
        if find_summary(place) is None:
            write_random_table(place, clips, dim, 0, part_clips=_PART_CLIPS)
        found = sum(counts.num_clips for counts in read_summary(place).values())
        assert (found, read_identity(place).dim) == (clips, dim), f"{place.uri} is another table"
        write_random_table(Place.of(f"{folder}/small"), _SMALL, dim, 0)
        connect(num_cpus=shares + 2)
        start_serve()
        try:
            small = deploy_index(f"{folder}/small", ReplicaConfig(num_shares=1, num_replicas=1, share_cpus=0.5))
            measure(result, small, place, shares, queries, clients, compared)
        finally:
            serve.shutdown()
            ray.shutdown()
    print(json.dumps(result, indent=1))


def measure(
    result: dict, small: ClusterIndex, table: Place, shares: int, num_queries: int, clients: int, compared: int
) -> None:
    """Deploy the table, ask it, and add to the result what was found; `small` tells what a replica takes without."""
    rng, dim = np.random.default_rng(1), result["dim"]
    random_queries(small, dim, rng, 3)
    before = memory_of(*replicas())
    started, known = time.perf_counter(), {process.pid for process in replicas()}
    index = deploy_index(table.uri, ReplicaConfig(num_shares=shares, num_replicas=1))
    result["opened in s"] = round(time.perf_counter() - started, 1)
    ours = [process for process in replicas() if process.pid not in known]
    vectors = random_queries(index, dim, rng, num_queries)
    allowed = rng.random(len(index.clip_ids)) < 0.1
    asked = {
        "pixels": [Query([vector]) for vector in vectors],
        "pixels, 10 % allowed": [Query([vector], allowed=allowed) for vector in vectors],
        "pixels, page 50": [Query([vector], offset=1000) for vector in vectors],
    }
    result["ms"] = {name: milliseconds(index.search, some, ours) for name, some in asked.items()}
    result[f"{clients} clients at once, ms"] = at_once(index, asked["pixels"], clients)
    some = [one for own in asked.values() for one in own[:compared]]
    result["answers equal to brute force"] = check(index, table, some)
    result["memory over bytes of the share"] = [
        {name: round((after[name] - before[0][name]) / (size * dim * 2), 3) for name in after}
        for after, size in zip(memory_of(*ours), index.share_sizes, strict=True)
    ]


def random_queries(index: ClusterIndex, dim: int, rng: np.random.Generator, number: int) -> np.ndarray:
    """Return features near those of random clips, after each was asked once."""
    rows = rng.integers(0, len(index.clip_ids), number)
    near = np.stack([index.video_feature(index.clip_ids[int(row)].as_py()) for row in rows])
    near += rng.normal(size=near.shape).astype(np.float32) / (2 * dim**0.5)
    for vector in near:
        index.search(Query([vector]))
    return near


def replicas() -> list[psutil.Process]:
    """Return the processes of shares, in the order of their start."""
    below = psutil.Process().children(recursive=True)
    found = [one for one in below if "ServeReplica" in " ".join(one.cmdline()) and "share-" in " ".join(one.cmdline())]
    return sorted(found, key=lambda one: " ".join(one.cmdline()).partition("share-")[2])


def memory_of(*processes: psutil.Process) -> list[dict[str, int]]:
    """Return bytes that each process has and had at most, without what it shares."""
    found = []
    for process in processes:
        with open(f"/proc/{process.pid}/status") as status:
            most = 1024 * int(status.read().split("VmHWM:")[1].split()[0])
        found.append({"kept": process.memory_info().rss, "most": most})
    return found


def milliseconds(search: Callable[[Query], object], queries: Sequence[Query], busy: Sequence[psutil.Process]) -> dict:
    """Return median and 95th percentile of a query, and the mean CPU time of each replica."""
    search(queries[0])
    taken, worked = [], cpu_seconds(busy)
    for query in queries:
        started = time.perf_counter()
        search(query)
        taken.append(1e3 * (time.perf_counter() - started))
    of_cpus = 1e3 * (cpu_seconds(busy) - worked) / len(queries) / len(busy)
    return percentiles(taken) | {"CPU time of a replica": round(of_cpus, 1)}


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Return the CPU time that processes have used."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def at_once(index: ClusterIndex, queries: Sequence[Query], num_clients: int) -> dict[str, float]:
    """Return median and 95th percentile of queries of several clients, each of which asks one after the other."""

    def ask(own: Sequence[Query]) -> list[float]:
        taken = []
        for query in own:
            started = time.perf_counter()
            index.search(replace(query))
            taken.append(1e3 * (time.perf_counter() - started))
        return taken

    with ThreadPoolExecutor(num_clients) as pool:
        found = list(pool.map(ask, [queries[number::num_clients] for number in range(num_clients)]))
    return percentiles([one for own in found for one in own])


def check(index: ClusterIndex, table: Place, queries: Sequence[Query]) -> int:
    """Return how many answers were compared with those of brute force; raises where one differs."""
    wanted = brute_force(table, queries)
    for query, best in zip(queries, wanted, strict=True):
        found = index.search(query)
        assert [(hit.clip_id, hit.row) for hit in found] == [(hit.clip_id, hit.row) for hit in best]
        np.testing.assert_allclose([hit.similarity for hit in found], [hit.similarity for hit in best], atol=1e-12)
    return len(queries)


def brute_force(folder: Place, queries: Sequence[Query]) -> list[list[Hit]]:
    """Compare each query with each clip in float64, part by part from the files."""
    best: list[list[Hit]] = [[] for _ in queries]
    directions = np.stack([query.plus[0] for query in queries]).astype(np.float64)
    first = 0
    for name in sorted(read_summary(folder)):
        part = read_part(folder / name, directions.shape[1], ("clip_id", "video"))
        features = part["video"].combine_chunks().flatten().to_numpy().reshape(len(part), -1).astype(np.float64)
        for own, query, similarity in zip(best, queries, directions @ features.T, strict=True):
            if query.allowed is not None:
                similarity = np.where(query.allowed[first : first + len(part)], similarity, -np.inf)
            for row in np.argsort(-similarity)[: query.num_wanted]:
                if np.isfinite(similarity[row]):
                    own.append(Hit(part["clip_id"][int(row)].as_py(), first + int(row), float(similarity[row])))
            own[:] = heapq.nsmallest(query.num_wanted, own, key=lambda hit: (-hit.similarity, hit.clip_id))
        first += len(part)
    return [own[query.offset :] for own, query in zip(best, queries, strict=True)]


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
