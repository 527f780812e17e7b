"""How long a query takes, and how much memory a table: exact search beside brute force and approximate search.

    .venv/bin/python benchmarks/search.py [--clips 100000] [--dim 256] [--captions 1] [--queries 100] [--threads 2]

The features are random directions around some crowds, as those of a corpus are. Prints JSON: milliseconds of a query
(median, 95th percentile, and time of CPUs, which other work on the machine changes less) by what is asked, the time of
brute force in the same run, clients at once, recall of approximate search, and the memory by which a process grows that
opens the table and searches it, over the bytes of the table.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import tyro
from search_cases.tables import percentiles, write_random_table

from mama_ray.search.approximate import ApproximateIndex, measure_recall
from mama_ray.search.embedding_table import EmbeddingTable
from mama_ray.search.index import ExactIndex, Query
from mama_ray.storage.places import Place

_MEMORY_PROGRAM = """
import sys, numpy as np, psutil
from mama_ray.search.embedding_table import EmbeddingTable
from mama_ray.search.index import ExactIndex, Query
def opened_and_searched(uri):
    index = ExactIndex(EmbeddingTable.open(uri))
    rng = np.random.default_rng(0)
    for mixture in (1.0, 0.5):
        index.search(Query(plus=[rng.normal(size=index.table.dim)], mixture=mixture))
    return index
small = opened_and_searched(sys.argv[2])
before = psutil.Process().memory_info().rss
index = opened_and_searched(sys.argv[1])
after = psutil.Process().memory_info().rss
peak = 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
print((after - before) / index.table.num_bytes, (peak - before) / index.table.num_bytes)
"""


def main(
    clips: int = 100_000, dim: int = 256, captions: int = 1, queries: int = 100, threads: int = 2, clients: int = 10
) -> None:
    """Measure and print one JSON object."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        write_random_table(Place.of(f"{folder}/table"), clips, dim, captions)
        write_random_table(Place.of(f"{folder}/small"), 100, dim, captions)
        table = EmbeddingTable.open(f"{folder}/table")
        command = [sys.executable, "-c", _MEMORY_PROGRAM, f"{folder}/table", f"{folder}/small"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    index, rng = ExactIndex(table), np.random.default_rng(1)
    vectors = [table.video[row].astype(np.float32) for row in rng.integers(0, clips, queries)]
    some = rng.random(clips) < 0.1
    asked = {
        "pixels": [Query([vector]) for vector in vectors],
        "pixels, 10 % allowed": [Query([vector], allowed=some) for vector in vectors],
        "pixels, page 50": [Query([vector], offset=1000) for vector in vectors],
    }
    if captions:
        asked["half captions"] = [Query([vector], mixture=0.5) for vector in vectors]
    result: dict = {"clips": clips, "dim": dim, "captions of a clip": captions, "threads": threads}
    result["exact, ms"] = {name: milliseconds(index.search, one) for name, one in asked.items()}
    result["brute force, ms"] = milliseconds(lambda query: brute_force(table, query), asked["pixels"][:10])
    result[f"exact, {clients} clients at once, ms"] = at_once(index, asked["pixels"], clients)
    started = time.perf_counter()
    approximate = ApproximateIndex(table)
    result["approximate, built in s"] = round(time.perf_counter() - started, 1)
    result["approximate, ms"] = {name: milliseconds(approximate.search, one) for name, one in asked.items()}
    result["approximate, recall@10"] = round(measure_recall(approximate), 4)
    kept, most = (round(float(one), 3) for one in done.stdout.split())
    result["memory over bytes of the table"] = {"kept": kept, "most": most}
    print(json.dumps(result, indent=1))


def milliseconds(search: Callable[[Query], object], queries: Sequence[Query]) -> dict[str, float]:
    """Return median and 95th percentile of a query, after one that is not counted, and the CPU time of the median."""
    search(queries[0])
    taken, of_cpus = [], []
    for query in queries:
        started, worked = time.perf_counter(), time.process_time()
        search(query)
        taken.append(1e3 * (time.perf_counter() - started))
        of_cpus.append(1e3 * (time.process_time() - worked))
    return percentiles(taken) | {"CPU time": round(float(np.median(of_cpus)), 2)}


def brute_force(table: EmbeddingTable, query: Query) -> np.ndarray:
    """Return the best rows by a matrix product in float32 and a sort of all."""
    similarity = table.video.astype(np.float32) @ np.asarray(query.plus[0], np.float32)
    return np.argsort(-similarity, kind="stable")[: query.limit]


def at_once(index: ExactIndex, queries: Sequence[Query], num_clients: int) -> dict[str, float]:
    """Return median and 95th percentile of queries of several clients, each of which asks one after the other."""
    taken: list[float] = []

    def ask(own: Sequence[Query]) -> None:
        for query in own:
            started = time.perf_counter()
            index.search(replace(query))
            taken.append(1e3 * (time.perf_counter() - started))

    clients = [threading.Thread(target=ask, args=(queries[number::num_clients],)) for number in range(num_clients)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return percentiles(taken)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
