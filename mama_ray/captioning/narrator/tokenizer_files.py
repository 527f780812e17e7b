"""The files of a tokenizer or processor as bytes, so that they can be sent, and as a folder again."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def files_of(directory: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@contextmanager
def unpacked(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Give a folder that holds these files."""
    with tempfile.TemporaryDirectory(prefix="mama_ray-processor-") as directory:
        for name, content in files.items():
            (Path(directory) / name).write_bytes(content)
        yield Path(directory)
