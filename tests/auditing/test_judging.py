"""Which captions an audit suspects, and what it would put in their place."""

import numpy as np
import pytest

from mama_ray.auditing.exclusions import caption_id
from mama_ray.auditing.judging import exclusions_of, judge_clips
from mama_ray.auditing.table import AUDIT_SCHEMA, read_audit
from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from tests.auditing.audited import audited

NAN = float("nan")
CLIPS = {
    "a": [("right of a", "human", 0.0)],
    "b": [("of nothing", "human", 180.0), ("written for b", "generated", 95.0)],
    "c": [("far off", "human", 100.0), ("farther off", "generated", 170.0)],
    "d": [("right of d", "human", 270.0)],
}
VIDEOS = [0.0, 90.0, 10.0, 270.0]
WEIGHTS = [1.2, 0.2, NAN, 0.4, NAN, 1.1]


def rows_of(**asked) -> dict[str, dict]:
    settings = {"by": "weight", "share": 0.5, "num_compared": 100} | asked
    return {row["clip_id"]: row for row in judge_clips(audited(CLIPS, VIDEOS, WEIGHTS), **settings).to_pylist()}


def test_the_lowest_weights_are_suspects_and_a_better_caption_of_the_clip_takes_the_place():
    rows = rows_of()
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "a": "keep",
        "b": "rewrite",
        "c": "exclude",  # its generated caption fits worse
        "d": "keep",
    }
    assert (rows["b"]["better_text"], rows["b"]["better_source"]) == ("written for b", "generated")
    assert rows["b"]["better_fit"] == pytest.approx(np.cos(np.radians(5)), abs=1e-6)
    assert rows["b"]["fit"] == pytest.approx(0.0, abs=1e-6)
    assert rows["b"]["weight_by_epoch"] == [1.0, 1.0]
    assert rows["c"]["better_text"] is None


def test_an_epoch_in_which_a_clip_was_not_recorded_is_null():
    found = audited(CLIPS, VIDEOS, WEIGHTS)
    found.means.by_epoch["loss"][1, 0] = NAN
    first = judge_clips(found, by="weight", share=0.5, num_compared=100).to_pylist()[0]
    assert first["loss_by_epoch"] == [2.0, None]


def test_captions_of_others_that_fit_better_are_named_the_best_first():
    rows = rows_of()
    assert [other["text"] for other in rows["c"]["others"]] == ["right of a", "written for b"]
    assert rows["c"]["share_better"] == pytest.approx(2 / 4)  # of those of a, b and d
    assert rows["a"]["others"] == []


def test_loss_and_fit_may_be_what_the_audit_goes_by():
    assert {name for name, row in rows_of(by="loss").items() if row["verdict"] != "keep"} == {"b", "c"}
    assert {name for name, row in rows_of(by="fit", share=0.25).items() if row["verdict"] != "keep"} == {"c"}


def test_no_share_is_no_suspect_and_a_caption_without_a_record_never_is_one():
    assert {row["verdict"] for row in rows_of(share=0.0).values()} == {"keep"}
    found = audited(CLIPS, VIDEOS, [1.2, 0.2, NAN, NAN, NAN, 1.1])
    table = judge_clips(found, by="weight", share=1.0, num_compared=100)
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    assert (rows["c"]["verdict"], rows["c"]["score"], rows["c"]["num_records"]) == ("keep", None, 0)
    assert [rows[name]["verdict"] for name in "abd"] == ["exclude", "rewrite", "exclude"]


def test_the_list_names_the_worst_first_with_their_captions():
    table = judge_clips(audited(CLIPS, VIDEOS, WEIGHTS), by="weight", share=0.5, num_compared=100)
    listed = exclusions_of(table, "weight")
    assert [(one.clip_id, one.caption_id, one.caption) for one in listed] == [
        ("b", caption_id("of nothing"), "of nothing"),
        ("c", caption_id("far off"), "far off"),
    ]
    assert listed[0].reason == "weight 0.200, rewrite"


def test_of_a_clip_that_cannot_be_read_nothing_is_said_by_features():
    found = audited(CLIPS, VIDEOS, WEIGHTS, unreadable=(1,))
    row = judge_clips(found, by="weight", share=0.5, num_compared=100).to_pylist()[1]
    assert (row["fit"], row["share_better"], row["others"], row["better_text"]) == (None, None, [], None)
    assert row["verdict"] == "exclude"


def test_the_table_has_its_schema_and_a_folder_without_one_is_told(tmp_path):
    table = judge_clips(audited(CLIPS, VIDEOS, WEIGHTS), by="weight", share=0.5, num_compared=100)
    assert table.schema.equals(AUDIT_SCHEMA)
    with pytest.raises(UserError, match="no audit"):
        read_audit(Place.of(tmp_path))
