"""A small corpus, the app over it, and a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestration.serving.app_process import RunningApp, make_shards, running_app
from tests.orchestration.serving.browsers import WatchedBrowser, chromium


@pytest.fixture(scope="session")
def small_shards(tmp_path_factory) -> Path:
    """Shards of a small embedded corpus."""
    return make_shards(tmp_path_factory.mktemp("small-corpus"))


@pytest.fixture(scope="session")
def bare_app(tmp_path_factory, small_shards) -> Iterator[RunningApp]:
    """The app over the small corpus with nothing else: no encoder, no captions, no narrator."""
    with running_app(tmp_path_factory.mktemp("bare-app"), "--shards", str(small_shards)) as app:
        yield app


@pytest.fixture(scope="session")
def browser() -> Iterator[WatchedBrowser]:
    """A real Chromium."""
    with chromium() as found:
        yield found
