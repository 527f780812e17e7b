"""A person's texts in place of captions: a small file beside the narration, of which nothing that was there is lost."""

import json
import logging
from pathlib import Path

from mama_ray.errors import UserError
from mama_ray.storage.places import Place
from mama_ray.storage.small_files import MAX_JSON_BYTES

logger = logging.getLogger(__name__)

EDITS_NAME = "edits.json"
_KEPT_NAME = "edits.damaged-{}.json"


class Edits:
    """The texts of one narration, by clip id.

    A file that is damaged, as by a disk or by hand, is kept aside under another name before a new one is written. As
    long as it lies there when the app starts, `notice` tells of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = sorted(path.name for path in folder.glob(_KEPT_NAME.format("*")))
        self.texts, self._is_damaged = _read(folder / EDITS_NAME)
        if self._is_damaged:
            logger.warning("%s is damaged: of its texts %d can be read", folder / EDITS_NAME, len(self.texts))

    @property
    def notice(self) -> str | None:
        """What a person has to know of texts that cannot be read; None where there are none."""
        names = [*self._kept, *([EDITS_NAME] if self._is_damaged else [])]
        if not names:
            return None
        return f"Not all of your texts can be read: {', '.join(names)} in the folder of this narration is damaged."

    def put(self, clip_id: str, text: str | None) -> None:
        """Keep a text for a window; None goes back to the model's.

        Raises OSError, and UserError where all texts together are too long, and changes nothing then.
        """
        texts = {name: own for name, own in self.texts.items() if name != clip_id}
        if text is not None:
            texts[clip_id] = text
        data = json.dumps(texts, ensure_ascii=False, indent=1).encode()
        if text is not None and len(data) > MAX_JSON_BYTES:
            wanted = f"at most {MAX_JSON_BYTES >> 20} MiB of them"
            raise UserError("the texts of this narration are too long", wanted=wanted, remedy="take back some of them")
        if self._is_damaged:
            self._set_aside()
        Place.of(self._folder / EDITS_NAME).write_whole(data)
        self.texts = texts

    def _set_aside(self) -> None:
        number = 1
        while (kept := self._folder / _KEPT_NAME.format(number)).exists():
            number += 1
        (self._folder / EDITS_NAME).rename(kept)
        self._kept.append(kept.name)
        self._is_damaged = False


def _read(path: Path) -> tuple[dict[str, str], bool]:
    """Return the texts that can be read, and whether there is anything else."""
    try:
        content = Place.of(path).read_bytes()  # earlier versions wrote any number of texts
    except FileNotFoundError:
        return {}, False
    except (OSError, UserError):
        return {}, True
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}, True
    if not isinstance(found, dict):
        return {}, True
    texts = {name: text for name, text in found.items() if isinstance(text, str)}
    return texts, len(texts) < len(found)
