"""The application over a corpus without any clip, in this process."""

from pathlib import Path

from fastapi import FastAPI

from mama_ray.data.index import INDEX_SCHEMA
from mama_ray.orchestration.serving.app import create_app
from mama_ray.orchestration.serving.catalog import Catalog
from mama_ray.orchestration.serving.job import AppJob
from mama_ray.orchestration.serving.opening import find_missing
from mama_ray.orchestration.serving.state import AppState
from mama_ray.storage.places import Place


def app_without_clips(folder: Path, narrator: str | None = None) -> FastAPI:
    """Make the application; `narrator` is never started."""
    columns = [name for name in INDEX_SCHEMA.names if name not in ("truth", "questions")]
    catalog = Catalog(INDEX_SCHEMA.empty_table().select(columns))
    state = AppState(AppJob(data=str(folder)), Place.of(folder), catalog, folder, narrator=narrator)
    state.missing = find_missing(state)
    return create_app(state)
