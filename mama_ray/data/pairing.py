"""Which texts of a shard belong to which video.

WebDataset ends a key at the first dot of a name, so `lecture_1.0.json` and `lecture_1.1.mp4` are one sample to it. Here
a text belongs to a video only if their names agree up to the last extension. Of a compound extension (`k.info.json`
beside `k.mp4`) the text is a field of its own, which nobody reads. What a name does not decide is refused, video by
video.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

TEXT_EXTENSIONS = ("json", "txt")


@dataclass(frozen=True)
class MemberLocation:
    """Where the video bytes of a clip lie in an (uncompressed) tar: `[offset, offset + num_bytes)`."""

    clip_id: str
    extension: str
    offset: int
    num_bytes: int
    sha256: str


@dataclass
class Sample:
    """A video with the texts of its name; memory is one of them.

    Attributes:
        key: the name up to the last extension; a second video of one name keeps its extension in it.
        texts: extension to content, whole.
        video: None where there is none, or where `error` is why it was not read.
        error: why the sample is refused. Where it has a `video`, it may have been given before, without error, and is
            withdrawn: what follows in the shard leaves open whose its texts are.
    """

    key: str
    texts: dict[str, bytes] = field(default_factory=dict)
    video: MemberLocation | None = None
    video_bytes: bytes = b""
    error: str | None = None


def split_member_name(name: str) -> tuple[str, str] | None:
    """Split a member's name at the last dot; None for hidden files and those without extension.

    The extension is in lower case.
    """
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.rpartition(".")
    if not stem or stem.startswith("."):
        return None
    return f"{folder}/{stem}" if folder else stem, extension.lower()


def group_of(stem: str) -> str:
    """Return the key that WebDataset gives to the name: up to the first dot of its last part."""
    folder, _, base = stem.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


class Group:
    """The members of one key of WebDataset, as they come; `finish` says what cannot be told apart."""

    def __init__(self) -> None:
        self._open: Sample | None = None
        self._open_stem = ""
        self._texts: dict[str, dict[str, bytes]] = {}  # that wait for a video of their name
        self._text_faults: dict[str, str] = {}  # why the texts of a stem are of no use
        self._text_names: dict[str, str] = {}  # of each stem, one name to tell
        self._late: set[str] = set()  # stems with a text that came after their video was given
        self._other_stems: set[str] = set()
        self._videos: dict[str, list[Sample]] = {}  # that were given

    @property
    def stems(self) -> set[str]:
        """Those of videos and texts."""
        return {*self._videos, *self._text_names}

    def add_other(self, stem: str) -> None:
        """Note a member that is neither video nor text."""
        self._other_stems.add(stem)

    def add_text(self, name: str, stem: str, extension: str, data: bytes | None) -> Iterator[Sample]:
        """Take a text (None where it is too large); yields the sample that it closes."""
        self._text_names.setdefault(stem, name)
        if self._open is not None and stem != self._open_stem and not stem.startswith(f"{self._open_stem}."):
            yield from self.close()
        if self._open is not None and stem == self._open_stem:
            fault = _put(self._open.texts, name, extension, data)
            self._open.error = fault or self._open.error
        elif stem in self._videos:
            self._late.add(stem)
        else:
            fault = _put(self._texts.setdefault(stem, {}), name, extension, data)
            if fault is not None:
                self._text_faults[stem] = fault

    def add_video(self, stem: str, extension: str) -> Sample:
        """Open a sample, whose video the caller fills in; the one before must have been closed."""
        assert self._open is None
        key = f"{stem}.{extension}" if stem in self._videos else stem
        self._open_stem, self._open = stem, Sample(key, texts=self._texts.pop(stem, {}))
        self._open.error = self._text_faults.get(stem)
        return self._open

    def close(self) -> Iterator[Sample]:
        """Yield the open sample, whose members have all come."""
        sample, self._open = self._open, None
        if sample is not None:
            kept = Sample(sample.key, video=sample.video, error=sample.error)  # without its bytes
            self._videos.setdefault(self._open_stem, []).append(kept)
            yield sample

    def finish(self) -> Iterator[Sample]:
        """Yield the open sample, then the withdrawn ones, then the names of texts that have no video."""
        yield from self.close()
        blamed: set[str] = set()
        for stem, samples in self._videos.items():
            reason, text_stem = self._doubt(stem, samples)
            if reason is None:
                continue
            blamed.add(text_stem)
            for sample in samples:
                if sample.error is None:
                    yield Sample(sample.key, video=sample.video, error=reason)
        for stem, name in self._text_names.items():
            is_field = stem in self._videos or _prefixes(stem, self._videos)
            if not is_field and stem not in blamed and stem not in self._other_stems:
                yield Sample(stem, error=f"annotations without a video: {name}")

    def _doubt(self, stem: str, samples: list[Sample]) -> tuple[str | None, str]:
        name = self._text_names.get(stem)
        if name is not None:
            if len(samples) > 1:
                return f"annotations of several videos: {name} has the name of {len(samples)}", stem
            if stem in self._late:
                return f"annotations apart from their video: {name} does not stand beside it", stem
            return None, ""
        for shorter in _prefixes(stem, self._text_names):
            if shorter not in self._videos and shorter not in self._other_stems:
                text = self._text_names[shorter]
                return f"annotations that may be of another video: {text} has only the first part of the name", shorter
        return None, ""


def _put(texts: dict[str, bytes], name: str, extension: str, data: bytes | None) -> str | None:
    """Put a text (None where it is too large) beside the others of its stem; returns why it is of no use, if it is."""
    if data is None:
        return f"annotations: {name} is too large"
    if texts.setdefault(extension, data) != data:
        return f"annotations that cannot be told apart: a second {name}"
    return None


def _prefixes(stem: str, known: dict) -> list[str]:
    """Return those of the known stems that end at an earlier dot of this one."""
    folder, slash, base = stem.rpartition("/")
    parts = base.split(".")
    shorter = (f"{folder}{slash}{'.'.join(parts[:count])}" for count in range(1, len(parts)))
    return [name for name in shorter if name in known]
