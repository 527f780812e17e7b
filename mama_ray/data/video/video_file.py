"""A video on a disk, opened so that a read that fails is an error of the disk and not damage of the video.

FFmpeg takes a failed read in the middle of a file for its end. What a Python file raises is raised by PyAV, whatever
FFmpeg makes of it.
"""

import io

from mama_ray.storage.retries import with_retries

_ATTEMPTS = 3  # within 3 s: the system below has tried for longer


class VideoFile(io.FileIO):
    """An unbuffered file whose reads are tried again for seconds. One that failed fails from then on: FFmpeg asks on.

    Raises OSError, which names the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._failure: OSError | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes."""
        if self._failure is not None:
            raise self._failure
        try:
            return with_retries(lambda: super(VideoFile, self).read(size), _ATTEMPTS) or b""
        except OSError as error:
            self._failure = OSError(error.errno, error.strerror, self.name)
            raise self._failure from error
