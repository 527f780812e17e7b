"""What takes long is told when it begins, on the way and at its end; what is over at once is not."""

import logging
import re
import time

import pytest

from mama_ray.storage.waits import told_wait


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "mama_ray")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_long_wait_is_told_at_its_begin_on_the_way_and_at_its_end(lines):
    with told_wait("starting an engine", every_s=0.05):
        assert lines() == ["starting an engine ..."]
        time.sleep(0.2)
    *on_the_way, last = lines()[1:]
    assert on_the_way and all(re.fullmatch(r"starting an engine: \d+ s so far", line) for line in on_the_way)
    assert re.fullmatch(r"starting an engine: done in \d+ s", last)


def test_what_is_over_at_once_is_not_told(lines):
    with told_wait("fetching a model", after_s=5.0):
        pass
    assert lines() == []


def test_what_lasts_past_its_first_seconds_is_told(lines):
    with told_wait("fetching a model", after_s=0.02):
        time.sleep(0.1)
    first, *on_the_way, last = lines()
    assert first == "fetching a model ..." and not on_the_way
    assert re.fullmatch(r"fetching a model: done in \d+ s", last)


def test_what_fails_is_left_to_its_error(lines):
    with pytest.raises(OSError, match="no network"), told_wait("fetching a model"):
        raise OSError("no network")
    assert lines() == ["fetching a model ..."]
