"""What a part of a rephrasing job holds; its place and name are those of captioning's parts."""

import pyarrow as pa
import pyarrow.parquet as pq

from mama_ray.orchestration.captioning.parts import part_place, rows_of_part
from mama_ray.storage.places import Place, storage_errors
from mama_ray.storage.retries import with_retries

PART_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # of the job's list of clips
        ("clip_id", pa.string()),
        ("video_sha256", pa.string()),
        ("sample", pa.int32()),
        ("shown_sha256", pa.string()),  # of the caption
        ("caption", pa.string()),
        ("seed", pa.int64()),
        ("num_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("mean_logprob", pa.float32()),
        ("error", pa.string()),
        # What became of the caption's candidates, on the first of its rows.
        ("num_looked_at", pa.int32()),
        ("num_equal", pa.int32()),
        ("num_repeated", pa.int32()),
        ("num_cut_off", pa.int32()),
        ("num_empty", pa.int32()),
    ]
)


def read_part(folder: Place, name: str) -> pa.Table | None:
    """Read a part; None when it is not what its name says, as after a power failure.

    Raises UserError where the storage fails: nothing is known of the part then.
    """
    place = part_place(folder, name)
    with storage_errors(place.uri):
        content = with_retries(place.read_bytes)  # at once: a part is small, and each range of it is a request
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowInvalid, OSError):  # Arrow has both for damaged bytes
        return None
    if not table.schema.equals(PART_SCHEMA) or sorted(set(table["row"].to_pylist())) != rows_of_part(name):
        return None
    return table
