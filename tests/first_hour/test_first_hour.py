"""The commands of docs/first_hour.md, as printed, on a folder of videos and a table with ten ordinary mistakes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.first_hour.brought import write_brought

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/first_hour.md"
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INTERRUPTED = "# Ctrl-C"  # how the page marks the command that is stopped by hand


def blocks() -> list[str]:
    """Return the commands of the page, block by block; the first names what the reader brings."""
    return _BLOCK.findall(PAGE.read_text())


def start(block: str, folder: Path) -> subprocess.Popen:
    """Start a block in a shell that has the repository's programs around it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (folder / "transcript.log").open("ab") as log:
        log.write(f"\n$ {block}".encode())
        log.flush()
        command = ["bash", "-euo", "pipefail", "-c", block]
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def interrupt(process: subprocess.Popen, checkpoints: Path) -> int:
    """Press Ctrl-C once there is a checkpoint; return how the command ended."""
    end = time.monotonic() + 300
    while not any(checkpoints.glob("*/manifest.json")):
        assert process.poll() is None and time.monotonic() < end, "no checkpoint before the end"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # a terminal gives Ctrl-C to the whole group
    return process.wait(timeout=120)


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.promise
def test_every_command_of_the_first_hour_works_as_printed(tmp_path):
    brought, *commands = blocks()
    write_brought(tmp_path / "brought")
    for name in ("jobs", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert re.findall(r"(\w+)=", brought) == ["VIDEOS", "TABLE", "NARRATOR", "ENCODER"]
    ours = "export VIDEOS=brought/videos TABLE=brought/clips.csv NARRATOR=brought/narrator ENCODER=brought/encoder\n"
    stopped = 0
    for block in commands:
        process = start(ours + block, tmp_path)
        if _INTERRUPTED in block:
            assert interrupt(process, tmp_path / "runs/mine/checkpoints") != 0
            stopped += 1
        else:
            status = process.wait(timeout=600)
            assert status == 0, (tmp_path / "transcript.log").read_text()[-4000:]
    assert stopped == 1
