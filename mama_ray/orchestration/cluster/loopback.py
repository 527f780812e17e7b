"""What makes a local Ray one user's alone: sockets on 127.0.0.1, and a token that only its own processes know.

Other users of the machine can still open a connection to 127.0.0.1; without the token they get nothing by it.
"""

import os
import secrets
from pathlib import Path

import psutil
from ray._private import ray_constants
from ray.util import get_node_ip_address

LOOPBACK = "127.0.0.1"
# Ray's switch by which a node takes the loopback address for its own: the default on Windows and macOS, so its name.
# `_node_ip_address="127.0.0.1"` does not do it: Ray puts the machine's outer address in its place.
_MANY_MACHINES = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_TOKEN_BYTES = 32
# Gloo, NCCL and vLLM choose an address of the machine by themselves and listen there.
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def close_local_ray() -> None:
    """Let a Ray that this process starts next listen on 127.0.0.1 only, and ask for a token; to be called before.

    What the environment says already is obeyed: RAY_AUTH_MODE=disabled, or a token of the user's own.
    """
    os.environ.setdefault(_MANY_MACHINES, "0")
    # Ray has read it at import.
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(_MANY_MACHINES, False)
    for name in _INTERFACES:
        os.environ.setdefault(name, _loopback_interface())
    os.environ.setdefault("VLLM_HOST_IP", LOOPBACK)
    if not _names_a_token() and os.environ.get(_MODE, "token").lower() == "token":
        # In the environment, which Ray's processes inherit and only this user can read. Ray's own way, a file in the
        # home directory, is open to whoever may read there.
        os.environ[_TOKEN] = secrets.token_hex(_TOKEN_BYTES)


def is_on_loopback() -> bool:
    """Tell whether the Ray of this process lives on the loopback address, thus on one machine."""
    return get_node_ip_address() == LOOPBACK


def _names_a_token() -> bool:
    if os.environ.get(_TOKEN) or os.environ.get(_TOKEN_PATH):
        return True
    # Whoever asks for tokens by name and has made one means that one.
    return _MODE in os.environ and Path("~/.ray/auth_token").expanduser().is_file()


def _loopback_interface() -> str:
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == LOOPBACK for one in addresses):
            return name
    return "lo"
