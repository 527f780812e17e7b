"""A page of several runs is of one protocol."""

import pytest

from mama_ray.errors import UserError
from mama_ray.orchestration.runs.report import write_page
from mama_ray.reporting.content import RunReport
from tests.evaluation.test_protocol import make_result


def test_no_page_compares_a_whole_benchmark_with_a_part_of_it(tmp_path):
    runs = [RunReport("whole"), RunReport("part")]
    results = {"whole": make_result(), "part": make_result(deviation="390 of 400", num_missing=10)}
    with pytest.raises(UserError, match="deviation"):
        write_page(str(tmp_path), "Two runs", runs, results)
    assert not (tmp_path / "index.html").exists()
    write_page(str(tmp_path), "One run", runs[1:], {"part": results["part"]})
    assert "embedded (390 of 400) test" in (tmp_path / "index.html").read_text()
