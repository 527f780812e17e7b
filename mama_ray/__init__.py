"""MAMA and LaViLa on Ray: caption, train with meta-learned sample weights, search and evaluate video-text models.

`import mama_ray` costs nothing: what its names stand for is imported when they are first used, and needs no Ray.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mama_ray.encoder.encoder import EncodedVideos as EncodedVideos
    from mama_ray.encoder.encoder import Encoder as Encoder
    from mama_ray.encoder.encoder import load_encoder as load_encoder
    from mama_ray.encoder.publish import push_to_hub as push_to_hub

    __version__: str

_HOMES = {
    "Encoder": "mama_ray.encoder.encoder",
    "EncodedVideos": "mama_ray.encoder.encoder",
    "load_encoder": "mama_ray.encoder.encoder",
    "push_to_hub": "mama_ray.encoder.publish",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("mama_ray.version").installed_version()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])
