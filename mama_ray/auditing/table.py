"""The audit's table, `audit.parquet`: one row per clip that was learned from, the judged caption in it.

Judged is the caption of the clip with the lowest score: mean weight, or what the audit goes by.
"""

import pyarrow as pa

from mama_ray.errors import UserError
from mama_ray.storage.parquet import read_parquet
from mama_ray.storage.places import Place, storage_errors

AUDIT_NAME = "audit.parquet"
SUMMARY_NAME = "audit.json"
KEEP, EXCLUDE, REWRITE = "keep", "exclude", "rewrite"
_OTHER = pa.struct([("clip_id", pa.string()), ("text", pa.string()), ("similarity", pa.float32())])
AUDIT_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_sha256", pa.string()),
        ("topic", pa.string()),
        ("caption", pa.string()),
        ("caption_id", pa.string()),
        ("source", pa.string()),
        ("num_captions", pa.int32()),
        ("num_records", pa.int32()),  # of the judged caption
        ("weight", pa.float32()),  # means over its records: 1 is uniform; null where it was not recorded
        ("loss", pa.float32()),
        ("cosine", pa.float32()),  # while the model learned
        ("epochs", pa.list_(pa.int32())),
        ("weight_by_epoch", pa.list_(pa.float32())),  # of the clip, whichever was read; null without a record
        ("loss_by_epoch", pa.list_(pa.float32())),
        ("fit", pa.float32()),  # cosine by the audit's encoder; null of a clip that could not be read
        ("share_better", pa.float32()),  # of the compared captions of others, those that fit better
        ("others", pa.list_(_OTHER)),  # the best of these
        ("better_text", pa.string()),  # a caption of the clip from another source that fits better, null without one
        ("better_source", pa.string()),
        ("better_fit", pa.float32()),
        ("score", pa.float32()),  # what the audit went by, low for a suspect; null without it
        ("verdict", pa.string()),  # keep, exclude or rewrite
    ]
)


def read_audit(folder: Place) -> pa.Table:
    """Read a finished audit's table; UserError where there is none."""
    place = folder / AUDIT_NAME
    with storage_errors(place.uri):
        try:
            table = read_parquet(place, lambda parquet: parquet.read())
        except FileNotFoundError as error:
            remedy = "make one: python jobs/audit.py --run RUN --output FOLDER"
            raise UserError("no audit", got=place, remedy=remedy) from error
        except pa.ArrowInvalid as error:
            raise UserError("the audit's table cannot be read", got=f"{place} ({error})") from error
    if not table.schema.equals(AUDIT_SCHEMA):
        raise UserError("not the table of an audit", got=place, wanted=f"columns {', '.join(AUDIT_SCHEMA.names)}")
    return table
