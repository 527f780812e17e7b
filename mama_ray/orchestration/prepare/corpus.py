"""The synthetic corpus made on Ray: one task per chunk of clips, which writes its videos itself."""

import logging
import time

import ray

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.folder import close_corpus, is_whole, num_chunks, open_corpus, write_chunk
from mama_ray.orchestration.cluster.connect import connect
from mama_ray.orchestration.cluster.results import result_of
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

# Drawing and encoding run on one thread. A retry redoes what its chunk had not finished, byte for byte.
_CPUS_PER_CHUNK = 1.0
_MAX_RETRIES = 3


def build_corpus(config: CorpusConfig, directory: str) -> str:
    """Make the corpus in a folder that all nodes see, and return the folder: `videos/` and `annotations.jsonl`.

    A folder or URI. A corpus of the same config that is there is used as it is; one that was left unfinished is
    completed. Raises UserError when the folder holds another corpus or other files, or the storage fails.
    """
    folder = Place.of(directory)
    with storage_errors(directory):
        if not is_whole(folder, config):
            with Lease(folder / LEASE_NAME, "corpus"):
                _build(config, folder)
    return directory


def _build(config: CorpusConfig, folder: Place) -> None:
    if open_corpus(folder, config):
        return
    connect()
    started_s = time.monotonic()
    # Tasks have another working directory: a place is absolute.
    waiting = [_write_chunk.remote(config, folder, chunk) for chunk in range(num_chunks(config))]
    num_clips = 0
    try:
        while waiting:
            (done,), waiting = ray.wait(waiting)
            num_clips += result_of(done)
    finally:
        for task in waiting:
            ray.cancel(task)
    close_corpus(folder, config)
    logger.info("made %d clips in %.1f s at %s", num_clips, time.monotonic() - started_s, folder)


@ray.remote(num_cpus=_CPUS_PER_CHUNK, max_retries=_MAX_RETRIES, name="corpus: write chunk")
def _write_chunk(config: CorpusConfig, folder: Place, chunk: int) -> int:
    with storage_errors(folder.uri):
        return write_chunk(folder, config, chunk)
