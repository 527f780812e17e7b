"""The app job: look at everything that was given, then serve it until it is stopped.

    python jobs/app.py --shards URI --run RUN --narrator DIR

What is wrong is told before anything is served, in one line: a corpus that is not there, a port that is taken, an
address that others reach without a token.
"""

import logging
import os
import socket

import uvicorn

from mama_ray.errors import UserError
from mama_ray.orchestration.serving.app import create_app
from mama_ray.orchestration.serving.connections import BoundedConnection
from mama_ray.orchestration.serving.job import ALL_ADDRESSES, LOOPBACK_HOSTS, AppJob, with_absolute_paths
from mama_ray.orchestration.serving.opening import open_state
from mama_ray.orchestration.serving.security import SMALLEST_TOKEN, TOKEN_VARIABLE
from mama_ray.storage.first_look import ensure_writable
from mama_ray.storage.lease import LEASE_NAME, Lease
from mama_ray.storage.places import Place, storage_errors

logger = logging.getLogger(__name__)

_STOP_WITHIN_S = 3  # of requests that are under way when the app is stopped


def serve(job: AppJob) -> str:
    """Serve the app until it is stopped; returns the line that says where its data lie."""
    job = with_absolute_paths(job)
    token = take_token(job)
    if "://" in job.data:
        raise UserError("the app keeps its data on this machine", got=job.data, wanted="a folder on this machine")
    ensure_writable(job.data)
    # A taken port, and data that another app writes, are told before anything slow.
    with _listening(job) as listener, Lease(Place.of(job.data) / LEASE_NAME, "app's data"):
        state = open_state(job, token)
        with storage_errors(job.data):  # each page takes a folder of its own there
            app = create_app(state)
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            log_config=None,  # ours masks
            access_log=False,
            server_header=False,
            date_header=False,
            lifespan="on",
            timeout_graceful_shutdown=_STOP_WITHIN_S,
        )
        logger.info("the app is at %s", address_of(job))
        uvicorn.Server(config).run(sockets=[listener])
    return f"the app was stopped; what it keeps is in {job.data}"


def take_token(job: AppJob) -> str | None:
    """Take the token out of the environment, which the processes that are started from here inherit, and return it.

    Raises UserError where one is needed and there is none, or a short one.
    """
    token = os.environ.pop(TOKEN_VARIABLE, "").strip() or None
    if token is None and job.host not in LOOPBACK_HOSTS:
        raise UserError(
            "an address that other machines reach needs a token",
            got=f"host {job.host}",
            remedy=f"set {TOKEN_VARIABLE} to a secret of {SMALLEST_TOKEN} letters or more, or leave host at 127.0.0.1",
        )
    if token is not None and len(token) < SMALLEST_TOKEN:
        raise UserError(f"{TOKEN_VARIABLE} is too short", wanted=f"{SMALLEST_TOKEN} letters or more")
    return token


def address_of(job: AppJob) -> str:
    """Return where a browser on this machine finds the app."""
    host = "127.0.0.1" if job.host in ALL_ADDRESSES else job.host
    return f"http://{f'[{host}]' if ':' in host else host}:{job.port}/"


def _listening(job: AppJob) -> socket.socket:
    """Return a socket that listens, before the work of a start: a port that is taken is told at once."""
    family = socket.AF_INET6 if ":" in job.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((job.host, job.port))
        listener.listen()  # or another app that is starting could have the port, too; who asks meanwhile waits
    except OSError as error:
        listener.close()
        raise UserError(
            "the app cannot listen there",
            got=f"{job.host} port {job.port} ({error.strerror})",
            remedy="end what listens there, or choose another port with --port",
        ) from error
    return listener
