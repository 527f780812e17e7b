"""Parts that a listing does not show yet, as where another node has just written them, are looked for again."""

import pytest

from mama_ray.orchestration.captioning.parts import CLIPS_PER_FILE
from tests.orchestration.captioning.test_finish import commit, finish, plan_of, table_of


@pytest.mark.ray
def test_clips_in_no_listed_part_are_told_and_a_later_listing_has_them(ray_cluster, tmp_path):
    plan = plan_of(tmp_path, CLIPS_PER_FILE + 100)
    commit(tmp_path, range(CLIPS_PER_FILE + 96))
    assert finish(plan)[1] == ["4 clips of file 1"]
    commit(tmp_path, range(CLIPS_PER_FILE + 96, CLIPS_PER_FILE + 100))
    assert finish(plan)[1] == []
    assert len(table_of(tmp_path)) == CLIPS_PER_FILE + 100
