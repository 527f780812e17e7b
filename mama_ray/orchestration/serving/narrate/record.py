"""What is known of a narration between two starts of the app: a folder with the video, a record, edits and the output.

`<narrations>/<id>/` holds `record.json`, the video, `request.yaml` (the narrate job), `out/` (its output), `log.txt`,
`edits.json` (`edits.py`), and `preview.h264.mp4` where browsers do not play the video. A folder without a record is an
upload that never ended.
"""

import logging
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mama_ray.data.clip import VIDEO_EXTENSIONS
from mama_ray.data.video.windows import Window, WindowPlanConfig, plan_windows
from mama_ray.errors import UserError, printable
from mama_ray.storage.places import Place
from mama_ray.storage.this_process import ProcessIdentity

logger = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]
ID_PATTERN = r"[0-9a-f]{16}"
RECORD_NAME = "record.json"
MAX_TEXT_CHARACTERS = 2_000
_LONGEST_NAME = 120
_LONGEST_STEM = 48  # of the video's name in the ids of its windows
_PARTIAL = "upload-"


class Settings(BaseModel):
    """How a person wants a video narrated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_s: float = Field(1.0, ge=0.25, le=60.0, description="Seconds that are narrated together.")
    num_captions: int = Field(1, ge=1, le=8, description="Samples of each window; more than one are drawn at random.")


class Record(BaseModel):
    """A narration as it stands; `reason` is why it failed."""

    model_config = ConfigDict(frozen=True)

    narration_id: str = Field(pattern=f"^{ID_PATTERN}$")
    name: str
    file_name: str
    created_s: float
    num_bytes: int
    duration_s: float = Field(gt=0)
    codec: str = ""
    settings: Settings
    state: State = "queued"
    reason: str | None = None
    process: ProcessIdentity | None = None

    @field_validator("process", mode="before")
    @classmethod
    def _forget_number_and_clock(cls, process: object) -> object:
        # As records once had it. Such a process has ended with its app: it reads the app's end of a pipe.
        return None if isinstance(process, list | tuple) else process

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it by itself."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def extension(self) -> str:
        """The extension of the video's file."""
        return self.file_name.rpartition(".")[2]

    def windows(self) -> list[Window]:
        """Return the windows that the narrate job lays over the video, in their order."""
        config = WindowPlanConfig(window_s=self.settings.window_s)
        return plan_windows(Path(self.file_name).stem, self.duration_s, config)


class NarrationFolder:
    """The folder of one narration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.output, self.log, self.request = path / "out", path / "log.txt", path / "request.yaml"
        self.preview = path / "preview.h264.mp4"  # no video is called so: `names_of` leaves no point in a stem

    def read(self) -> Record | None:
        """Return the record; None where there is none that can be read, or that is another's."""
        try:
            record = Record.model_validate_json(Place.of(self.path / RECORD_NAME).read_bytes())
        except (OSError, ValidationError, UserError) as error:
            logger.warning("%s is no narration that can be shown: %s", self.path, " ".join(str(error).split())[:300])
            return None
        is_own = record.narration_id == self.path.name and record.file_name == Path(record.file_name).name
        return record if is_own else None

    def write(self, record: Record) -> None:
        """Write the record, whole or not at all."""
        Place.of(self.path / RECORD_NAME).write_whole(record.model_dump_json(indent=1))


def new_id() -> str:
    """Return an id that no other narration has."""
    return secrets.token_hex(8)


def partial_upload(folder: Path, narration_id: str) -> Path:
    """Return where a video is received, until it is known to be one."""
    return folder / f"{_PARTIAL}{narration_id}.part"


def keep_upload(folder: Path, upload: Path, record: Record) -> NarrationFolder:
    """Make the folder of a narration out of a video that was received. Raises OSError, and leaves nothing then."""
    path = folder / record.narration_id
    try:
        path.mkdir()
        upload.rename(path / record.file_name)
        kept = NarrationFolder(path)
        kept.write(record)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return kept


def remove_unfinished(folder: Path) -> None:
    """Remove what uploads have left behind that a killed app did not see the end of."""
    for path in folder.glob(f"{_PARTIAL}*.part"):
        path.unlink(missing_ok=True)
    for path in folder.iterdir():
        if re.fullmatch(ID_PATTERN, path.name) and not (path / RECORD_NAME).exists():
            shutil.rmtree(path, ignore_errors=True)


def names_of(given: str) -> tuple[str, str]:
    """Return how a video is called on the page, and as a file whose name is safe everywhere.

    Raises UserError for a name without the extension of a video.
    """
    shown = printable(given.replace("\\", "/").rpartition("/")[2]).strip()[-_LONGEST_NAME:]
    stem, _, extension = shown.rpartition(".")
    if extension.lower() not in VIDEO_EXTENSIONS:
        wanted = f"a name that ends in one of {', '.join(VIDEO_EXTENSIONS)}"
        raise UserError("not the name of a video", got=shown or "no name", wanted=wanted)
    safe = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:_LONGEST_STEM].strip("-") or "video"
    return shown, f"{safe}.{extension.lower()}"


def now_s() -> float:
    """Return the time for `created_s`."""
    return time.time()
