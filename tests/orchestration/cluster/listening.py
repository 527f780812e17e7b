"""Which sockets a process and all below it listen on, and whether somebody without its token gets an answer there."""

import contextlib
import http.client
import ipaddress

import psutil


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def listening_sockets(pid: int) -> set[tuple[str, int, str]]:
    """Return (address, port, program) of every TCP socket of a process and those below it that takes connections."""
    found = set()
    for process in family(pid):
        with contextlib.suppress(psutil.Error):  # it may end while it is looked at
            program = " ".join([process.name(), *process.cmdline()]).strip()
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.add((one.laddr.ip, one.laddr.port, program))
    return found


def is_loopback(address: str) -> bool:
    """Tell whether only this machine reaches an address; IPv6 sockets of Ray tell theirs as ::ffff:127.0.0.1."""
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def http_status(port: int, path: str, token: str | None) -> int:
    """Return the status by which an HTTP server of this machine answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    finally:
        connection.close()
