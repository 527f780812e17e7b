"""A part that the storage does not give is not taken for a damaged one, which would be made again."""

import pytest

from mama_ray.data.index import read_index
from mama_ray.orchestration.indexing.check import _compare
from mama_ray.orchestration.indexing.plan import Part, hash_texts, texts_of
from mama_ray.search.embedding_parts import write_part
from mama_ray.storage.failures import StorageError
from mama_ray.storage.places import Place
from tests.data.shard_factory import write_dataset
from tests.search.made_table import make_rows
from tests.storage.s3_faults import Refusing, serving

compare = _compare._function  # what the remote task runs
DIM = 8


class RefusingReads(Refusing):
    """Lets everybody see that a file is there, and nobody read it."""

    def refuse(self, request):
        return None if request.method == "HEAD" else super().refuse(request)


def test_a_part_that_cannot_be_read_ends_the_job_a_damaged_one_does_not(s3_server, s3_bucket, tmp_path, monkeypatch):
    write_dataset(tmp_path, [3])
    clips = read_index(Place.of(tmp_path))
    texts = texts_of(clips.select(["captions"]).to_pylist())
    known = zip(clips["clip_id"].to_pylist(), clips["sha256"].to_pylist(), texts, strict=True)
    rows = [
        row | {"clip_id": clip_id, "video_sha256": sha256, "texts_sha256": hash_texts(own), "captions": []}
        for row, (clip_id, sha256, own) in zip(make_rows(3, DIM), known, strict=True)
    ]
    part, uri = Part("a-0000.parquet", 0, 3), f"s3://{s3_bucket}/index"
    write_part(Place.of(uri) / part.name, rows, DIM)
    with serving(RefusingReads(s3_server["AWS_ENDPOINT_URL"])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        state, other = compare(clips, uri, [part], DIM)
        assert (list(state.done), other) == ([part.name], None)
        proxy.refuse_from(403, "AccessDenied", below=".parquet")
        with pytest.raises(StorageError, match=part.name):
            compare(clips, uri, [part], DIM)
        proxy.be_calm()
        (Place.of(uri) / part.name).write_whole(b"PAR1 and no more")
        assert compare(clips, uri, [part], DIM)[0].done == {}
