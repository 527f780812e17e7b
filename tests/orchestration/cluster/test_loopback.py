"""What a local Ray is told before it starts: its address, and a token unless the user has said otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = (
    "import os\nfrom mama_ray.orchestration.cluster.loopback import close_local_ray\nclose_local_ray()\n"
    "print(os.environ.get('RAY_AUTH_MODE'), os.environ.get('RAY_AUTH_TOKEN'), os.environ.get('RAY_AUTH_TOKEN_PATH'))\n"
    "from ray.util import get_node_ip_address\nprint(get_node_ip_address())"
)


def told(home: Path, said: dict[str, str]) -> tuple[list[str], str]:
    """Return mode, token and path of the token after the call, and the address that Ray takes for its node's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT), "HOME": str(home)} | said,
    )  # fmt: skip
    words, address = done.stdout.splitlines()
    return words.split(), address


@pytest.mark.parametrize("has_file", [False, True])
@pytest.mark.parametrize("mode", [None, "token"])
def test_a_local_ray_gets_a_token_of_its_own_unless_one_is_meant(tmp_path, mode, has_file):
    if has_file:  # any job may have left one there; who names the mode means it
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray/auth_token").write_text("of the user")
    (kept_mode, token, _), address = told(tmp_path, {"RAY_AUTH_MODE": mode} if mode else {})
    assert (kept_mode, address) == (str(mode), "127.0.0.1")
    assert (token == "None") == (mode == "token" and has_file)
    assert token == "None" or len(token) == 64


@pytest.mark.parametrize(
    "said", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "mine"}, {"RAY_AUTH_TOKEN_PATH": "/of/mine/token"}]
)
def test_what_the_user_says_of_tokens_is_obeyed(tmp_path, said):
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    assert told(tmp_path, said)[0] == [said.get(name, "None") for name in names]
