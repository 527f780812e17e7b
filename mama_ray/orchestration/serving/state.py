"""What all pages and routes share: the corpus, what else was given, and what is missing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mama_ray.orchestration.serving.catalog import Catalog
from mama_ray.orchestration.serving.job import AppJob
from mama_ray.storage.places import Place


@dataclass
class AppState:
    """The app while it runs. Nothing in it changes once the server has begun, but what `data_dir` holds.

    Attributes:
        job: what was asked for.
        shards: folder of the corpus's shards.
        catalog: its clips, with all captions.
        data_dir: folder on this machine for what the app itself keeps; a router takes a folder of its own in it.
        token: what clients must know; None on this machine's own address without one.
        index: `search.index.ExactIndex` over the corpus, None where there is no encoder.
        towers: `search.towers.Towers` that the index was made by, None likewise.
        narrator: captioner as jobs/narrate.py takes it, None where none was given.
        audit_folder: what jobs/audit.py wrote, None where none was given.
        missing: by capability (search, captions, narrate, weights) what is missing and how to get it; a capability
            that is there is not in it.
    """

    job: AppJob
    shards: Place
    catalog: Catalog
    data_dir: Path
    token: str | None = None
    index: Any = None
    towers: Any = None
    narrator: str | None = None
    audit_folder: Place | None = None
    missing: dict[str, str] = field(default_factory=dict)
