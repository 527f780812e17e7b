"""What a process logs and prints is masked, in every handler and however often it is asked for."""

import io
import logging
import subprocess
import sys

import pytest

from mama_ray.masking.output import MaskedStream, masked_errors

PROGRAM = """
import logging, sys, warnings
early = logging.StreamHandler(sys.stdout)  # a library's own, which has the stream as it was
early.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
logging.getLogger("library").addHandler(early)
from mama_ray.masking import mask_this_process
mask_this_process(), mask_this_process()
uri = "s3://key:hunter/2@bucket/x"
print("printed", uri), print("printed", uri, file=sys.stderr)
warnings.warn(f"warned of {uri}")
log = logging.getLogger("library")
log.warning("logged %s and %d", uri, 7)
log.warning("100%% of %s", {"password": "hunter"})
log.warning("arguments too few %s %s", "x")
try:
    raise OSError(uri)
except OSError:
    log.exception("raised")
assert sys.stdout.isatty() is False and sys.stdout.fileno() == 1
raise RuntimeError(uri)
"""


def test_a_process_masks_what_it_prints_logs_and_raises():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert "hunter" not in done.stdout + done.stderr
    assert "printed s3://***@bucket/x" in done.stdout and "printed s3://***@bucket/x" in done.stderr
    assert "WARNING logged s3://***@bucket/x and 7" in done.stdout
    assert "WARNING 100% of {'password': '***'}" in done.stdout
    assert "OSError: s3://***@bucket/x" in done.stdout and "RuntimeError: s3://***@bucket/x" in done.stderr
    assert "not enough arguments" in done.stderr  # told by logging, as ever


def test_a_masked_stream_is_otherwise_the_stream_it_stands_for():
    below = io.StringIO()
    stream = MaskedStream(below)
    assert stream.write("x?token=hunter2") == len("x?token=hunter2")
    stream.writelines(["a", "b"])
    stream.flush()
    assert below.getvalue() == "x?token=***ab" and not stream.isatty()
    with pytest.raises(AttributeError):
        stream.no_such_thing  # noqa: B018


def test_records_without_a_secret_keep_their_arguments():
    seen = []
    handler = logging.Handler()
    handler.emit = seen.append
    before = logging.getLogRecordFactory()
    from mama_ray.masking.output import _MaskedRecords

    logger = logging.getLogger("tests.masking")
    logger.addHandler(handler)
    logging.setLogRecordFactory(_MaskedRecords(before))
    try:
        logger.warning("step %d", 3)
        logger.warning("password=%s", "hunter2")
    finally:
        logging.setLogRecordFactory(before)
        logger.removeHandler(handler)
    assert [(record.msg, record.args) for record in seen] == [("step %d", (3,)), ("password=***", None)]


def test_an_error_with_a_secret_becomes_one_without_and_others_pass():
    @masked_errors
    def start(text: str) -> None:
        raise OSError(text)

    with pytest.raises(OSError, match="^no secret$"):
        start("no secret")
    with pytest.raises(RuntimeError, match=r"^OSError: nobody at http://\*\*\*@host$"):
        start("nobody at http://me:hunter2@host")
