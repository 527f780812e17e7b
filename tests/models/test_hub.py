"""A model of the hub at the commit that a job began with, and weights that are compared before they are used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mama_ray.errors import UserError
from mama_ray.models.hub import require_weights, revision_of
from mama_ray.models.weight_files import hash_weights
from tests.encoder.hub_server import running_hub

FETCHES = """
import sys
from pathlib import Path
from mama_ray.models.hub import local_model

with local_model("me/model", revision=sys.argv[1] or None) as folder:
    print(folder)
"""


def fetch(hub, home, revision: str = "") -> str:
    """Fetch the model in a process of its own: the hub's address is read when its library is imported."""
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", FETCHES, revision]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_model_of_the_hub_stays_at_its_revision(tmp_path):
    with running_hub() as hub:
        hub.repositories["me/model"] = {"config.json": b"{}", "model.safetensors": b"first"}
        first = Path(fetch(hub, tmp_path / "a node"))
        revision = revision_of(first)
        assert revision
        hub.repositories["me/model"]["model.safetensors"] = b"second"
        others = [Path(fetch(hub, tmp_path / "another node", one)) for one in (revision, "")]
    assert [(folder / "model.safetensors").read_bytes() for folder in (first, *others)] == [
        b"first",
        b"first",
        b"second",
    ]
    require_weights(others[0], hash_weights(first), "me/model")
    with pytest.raises(UserError, match="another one than when the job began"):
        require_weights(others[1], hash_weights(first), "me/model")


def test_a_folder_of_ones_own_has_no_revision_and_may_have_lost_its_weights(tmp_path):
    assert revision_of(tmp_path) is None
    with pytest.raises(UserError, match="another one"):
        require_weights(tmp_path, "0" * 64, str(tmp_path))
