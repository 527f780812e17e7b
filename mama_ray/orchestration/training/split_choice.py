"""The clips of a run's splits with their captions: all of them held, or of a large corpus as rows that are read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mama_ray.auditing.exclusion_table import ExclusionTable
from mama_ray.auditing.exclusions import hash_exclusions, read_exclusions, require_known
from mama_ray.captioning.join import TableUse
from mama_ray.data.index_rows import IndexRows
from mama_ray.data.row_facts import RowFacts, facts_of
from mama_ray.data.sources import require_sources, rows_of_shares, rows_of_source
from mama_ray.errors import UserError
from mama_ray.orchestration.training.clip_choice import choose_clips
from mama_ray.orchestration.training.large_choice import choose_large
from mama_ray.orchestration.training.large_train import Rows, read_splits
from mama_ray.orchestration.training.settings import DataConfig
from mama_ray.storage.places import Place, storage_errors
from mama_ray.training.settings import TaskConfig


@dataclass(frozen=True)
class ChosenClips:
    """The clips of the splits with their captions; `facts` are there where those of train are rows that are read."""

    tables: dict[str, Rows]
    num_uncaptioned: dict[str, int]
    uses: dict[str, TableUse]
    num_excluded: dict[str, int]
    sha256_of_excluded: str | None
    facts: RowFacts | None = None


def choose_splits(
    shards: str,
    rows: dict[str, IndexRows],
    config: DataConfig,
    seed: int,
    task: TaskConfig,
    *,
    max_held: int | None,
    work: str | None,
    counted: Sequence[str] = (),
) -> ChosenClips:
    """Choose the clips of all splits and give them their captions, those of train as rows that are read where they may.

    max_held: rows of train that are held at most, None for all. work: as `load_run_data` takes it. counted: sources
    that the facts of rows which are read tell of, beside those of shares. UserError for an exclusion of clips that are
    not there, and what the choice itself refuses.
    """
    with storage_errors(shards):
        tables, is_served = read_splits(rows, config, max_held=max_held, can_write=work is not None)
    if not is_served:
        excluded = read_exclusions(Place.of(config.exclude)) if config.exclude else []
        found = choose_clips(tables, config, seed, needs_captions=task.contrast, excluded=excluded)
        require_known(config.exclude, excluded, found[-1])
        return ChosenClips(*found, hash_exclusions(excluded) if excluded else None)
    with storage_errors(shards), storage_errors(work or shards):
        listed = ExclusionTable.read(Place.of(config.exclude)) if config.exclude else None
        place = None if work is None else Place.of(work)
        large = choose_large(rows["train"], tables, config, seed, excluded=listed, work=place)
        of_shares = [source for source, share in config.source_shares.items() if share > 0]
        facts = facts_of(large.train, [*of_shares, *counted])
    pa.default_memory_pool().release_unused()  # it keeps what row groups were read into, 0.2 GB
    if listed:
        require_known(config.exclude, listed, large.num_excluded)
    splits = {**large.others, "train": large.train}
    sha256 = listed.sha256() if listed else None
    return ChosenClips(splits, large.num_uncaptioned, large.uses, large.num_excluded, sha256, facts)


def require_shares(train: Rows, facts: RowFacts | None, shares: dict[str, float]) -> None:
    """Raise UserError for a share of a source that no clip has: told here, not by a worker."""
    if facts is not None:
        counts = {source: int(np.sum(own.clips_per_shard)) for source, own in facts.sources.items() if source in shares}
        require_sources(counts, shares)
    elif isinstance(train, pa.Table):
        rows_of_shares(train, shares)


def require_generated(train: Rows, facts: RowFacts | None) -> None:
    """Raise UserError where no training clip has a generated caption beside which its own could count."""
    if facts is not None:
        count = int(np.sum(facts.sources["generated"].clips_per_shard))
    else:
        assert isinstance(train, pa.Table)
        count = len(rows_of_source(train, "generated"))
    if not count:
        raise UserError(
            "no training clip has a generated caption, in whose loss objective.generated_share would give it a part",
            got=f"{len(train)} clips",
            wanted="data.caption_tables with captions of some, or such in the shards",
        )
