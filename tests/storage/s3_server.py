"""A real S3 server on loopback, and a bucket in it."""

import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import s3fs


@pytest.fixture(scope="module")
def s3_server():
    """An S3 server on loopback; yields its environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    yield {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key-of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    process.kill()
    process.wait()


@pytest.fixture
def s3_bucket(s3_server, monkeypatch):
    """A bucket, and this process in the environment that leads to it."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    store = s3fs.S3FileSystem(endpoint_url=s3_server["AWS_ENDPOINT_URL"], skip_instance_cache=True)
    name = f"bucket-{len(store.ls('/')) + 1}"
    store.mkdir(name)
    return name
