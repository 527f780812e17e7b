"""The version of this package: the one in pyproject.toml, as its installation recorded it."""

import importlib.metadata

_UNKNOWN = "0+unknown"


def installed_version() -> str:
    """Return the version; "0+unknown" for a source tree that is on the path but was never installed."""
    try:
        return importlib.metadata.version("mama-ray")
    except importlib.metadata.PackageNotFoundError:
        return _UNKNOWN
