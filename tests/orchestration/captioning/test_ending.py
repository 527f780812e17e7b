"""A process whose engine died leaves nothing on the disk, though its threads all see the death at once."""

import subprocess
import sys

import pytest

ENDS = """
import tempfile, threading, time
from contextlib import ExitStack
from pathlib import Path

from mama_ray.orchestration.captioning.ending import end_process

resources = ExitStack()
folder = Path(resources.enter_context(tempfile.TemporaryDirectory(dir="{home}")))
(folder / "model.safetensors").write_bytes(bytes(9))
resources.callback({last})  # what is closed first
threads = [threading.Thread(target=end_process, args=(resources,)) for _ in range(4)]
for thread in threads:
    thread.start()
time.sleep(60)
"""


def fail(kind: str) -> str:
    return f'lambda: (_ for _ in ()).throw({kind}("it cannot be closed"))'


@pytest.mark.parametrize("last", ["time.sleep, 0.5", fail("OSError"), fail("ValueError")])
def test_a_process_that_ends_takes_its_downloads_with_it(tmp_path, last):
    command = [sys.executable, "-c", ENDS.format(home=tmp_path, last=last)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1, done.stderr
    assert list(tmp_path.iterdir()) == []
