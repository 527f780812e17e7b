"""A small corpus, the app over it, and a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.encoder.tiny_encoder import write_model
from tests.orchestration.serving.app_process import RunningApp, make_shards, running_app
from tests.orchestration.serving.browsers import WatchedBrowser, chromium
from tests.orchestration.serving.table_without_ray import write_table

HOSTILE_CAPTIONS = (
    "<script>window.captionRan = 1</script> a red star",
    '<img src=x onerror="window.captionRan = 1"> --> a blue ring',
    '=CMD("calc") "><svg onload=window.captionRan=1> {{ 7 * 7 }} \' a star',
)


def hostile_rows() -> list[dict]:
    """Clips of the small corpus once more, with captions that must never be more than text."""
    return [
        {"video": f"simple-0-val-{number:06d}.mp4", "clip_id": f"hostile-{number}", "split": "val", "captions": [text]}
        for number, text in enumerate(HOSTILE_CAPTIONS)
    ]


@pytest.fixture(scope="session")
def small_shards(tmp_path_factory) -> Path:
    """Shards of a small embedded corpus and a few hostile captions."""
    return make_shards(tmp_path_factory.mktemp("small-corpus"), more=hostile_rows())


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """A dual encoder with random weights."""
    return write_model(tmp_path_factory.mktemp("small-model"))


@pytest.fixture(scope="session")
def small_index(tmp_path_factory, small_shards, small_model) -> Path:
    """The table of embeddings of the small corpus."""
    return write_table(small_shards, small_model, tmp_path_factory.mktemp("small-index"))


@pytest.fixture(scope="session")
def bare_app(tmp_path_factory, small_shards) -> Iterator[RunningApp]:
    """The app over the small corpus with nothing else: no encoder, no captions, no narrator."""
    with running_app(tmp_path_factory.mktemp("bare-app"), "--shards", str(small_shards)) as app:
        yield app


@pytest.fixture(scope="session")
def searching_app(tmp_path_factory, small_shards, small_model, small_index) -> Iterator[RunningApp]:
    """The app over the small corpus with an encoder; it takes uploads of 1 MiB."""
    given = ["--shards", str(small_shards), "--run", str(small_model), "--index", str(small_index)]
    with running_app(tmp_path_factory.mktemp("searching-app"), *given, "--max_upload_mib", "1") as app:
        yield app


@pytest.fixture(scope="module")  # while it lives there is a running event loop, which tests of asyncio cannot have
def browser() -> Iterator[WatchedBrowser]:
    """A real Chromium."""
    with chromium() as found:
        yield found
