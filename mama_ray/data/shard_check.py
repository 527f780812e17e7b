"""The quick check of shards before a job: are they as long as the index says, and do they end as an archive does."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from mama_ray.data.index import shard_sizes
from mama_ray.data.tar_headers import TAR_BLOCK
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from mama_ray.storage.retries import with_retries

# Two requests to an object store for each shard, one after the other, of which Arrow's S3 client keeps 25 in flight.
_THREADS = 24
_CHECKS_AT_ONCE = 4096  # bounds what waits in the pool, whatever the number of shards
# Of more shards the sizes come from a listing, which is a request for 1,000, and the ends of so many are looked at.
_MOST_ENDS = 1024


def check_shards(folder: Place, table: pa.Table) -> None:
    """Check the shards of an index that was read whole, as `check_sizes` does."""
    expected = shard_sizes(table)
    check_sizes(folder, expected, pc.unique(table["shard"]).to_pylist())


def check_sizes(folder: Place, expected: Mapping[str, Mapping[str, int]], names: Collection[str]) -> None:
    """Check shards by their size and their end of archive; raise one UserError that names the bad ones.

    expected: {"num_bytes"} of every shard. names: those that have clips; all that are expected where none of them is.
    Up to 1,024 shards cost two requests each, many at a time. Of more, the sizes are those of one listing of their
    folders, and only what it does not confirm is asked for alone, and the ends of 1,024 that are spread over all.
    `scan_shard` is the check that reads everything. An error of the storage is that of the first shard that met one.
    """
    names = sorted(set(names) & set(expected)) or sorted(expected)
    if len(names) > _MOST_ENDS:
        spread = {names[number * len(names) // _MOST_ENDS] for number in range(_MOST_ENDS)}
        names = sorted(spread.union(_unconfirmed(folder, names, expected)))

    def find_trouble(name: str) -> str | None:
        return _shard_trouble(folder / name, expected[name]["num_bytes"])

    bad = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(names), _CHECKS_AT_ONCE):
            some = names[start : start + _CHECKS_AT_ONCE]
            reasons = pool.map(find_trouble, some)
            bad += [f"{name} ({reason})" for name, reason in zip(some, reasons, strict=True) if reason]
    if bad:
        shown = ", ".join(bad[:20]) + (f" and {len(bad) - 20} more" if len(bad) > 20 else "")
        raise UserError(
            "shards are not what the index says", got=shown, remedy="restore them or run jobs/prepare.py again"
        )


def _unconfirmed(folder: Place, names: Sequence[str], expected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the shards that a listing does not show with their size; all of them where the storage cannot list."""
    left = dict.fromkeys(names)
    for parent in sorted({name.rpartition("/")[0] for name in names}):
        place = folder / parent if parent else folder
        try:
            found = with_retries(partial(_sizes_in, place))
        except (OSError, NotImplementedError):  # the shards themselves may be readable all the same
            continue
        for name, num_bytes in found.items():
            shard = f"{parent}/{name}" if parent else name
            if shard in left and expected[shard]["num_bytes"] == num_bytes:
                del left[shard]
    return list(left)


def _sizes_in(folder: Place) -> dict[str, int]:
    """Return the bytes of every file in a folder: one request for 1,000."""
    found = folder.filesystem.get_file_info(pafs.FileSelector(folder.path, allow_not_found=True))
    return {info.base_name: info.size for info in found if info.is_file and info.size is not None}


def _shard_trouble(place: Place, num_bytes: int) -> str | None:
    try:
        with place.open_file() as file:
            size = file.size()
            if size != num_bytes:
                return f"{'truncated' if size < num_bytes else 'grown'}: {size} of {num_bytes} bytes"
            return "no end of archive" if file.read_at(TAR_BLOCK, num_bytes - TAR_BLOCK).strip(b"\0") else None
    except OSError:
        if place.is_file():
            raise
        return "missing"
