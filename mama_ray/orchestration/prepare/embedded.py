"""The embedded corpus as shards: generated and prepared on first use, found again afterwards."""

import hashlib

from pydantic import TypeAdapter

from mama_ray.config import decisive_values
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.orchestration.prepare.corpus import build_corpus
from mama_ray.orchestration.prepare.job import PrepareJob
from mama_ray.orchestration.prepare.run import run
from mama_ray.storage.places import join_uri


def embedded_shards(corpus: CorpusConfig, storage: str) -> str:
    """Return the folder of the corpus's shards under `storage`, which all nodes see, making them if need be."""
    folder = join_uri(storage, folder_name(corpus))
    build_corpus(corpus, folder)
    shards = join_uri(folder, "shards")
    run(PrepareJob(videos=join_uri(folder, "videos"), annotations=join_uri(folder, "annotations.jsonl"), output=shards))
    return shards


def folder_name(corpus: CorpusConfig) -> str:
    """Name the folder of a corpus: what was made before a field came is found again where the field has its default."""
    if corpus == CorpusConfig():
        return "embedded"
    # As pydantic writes a config: names were made of that from the first.
    described = TypeAdapter(dict).dump_json(decisive_values(corpus))
    return f"embedded-{hashlib.sha256(described).hexdigest()[:8]}"
