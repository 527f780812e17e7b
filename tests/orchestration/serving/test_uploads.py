"""An upload is on the disk whole, or not at all."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mama_ray.data.video.settings import DecodeConfig
from mama_ray.errors import UserError
from mama_ray.orchestration.narration.job import NarrateJob
from mama_ray.orchestration.serving.job import AppJob
from mama_ray.orchestration.serving.uploads import NoRoom, TooLarge, look_at_upload, receive
from tests.data.video.video_factory import make_audio_only, make_video

MIB = bytes(1 << 20)


async def sent(num_mib: int, error: Exception | None = None) -> AsyncIterator[bytes]:
    for _ in range(num_mib):
        yield MIB
    if error is not None:
        raise error


def test_a_video_is_written_as_it_was_sent(tmp_path):
    async def odd() -> AsyncIterator[bytes]:
        for chunk in (b"a", MIB, b"", b"bc"):
            yield chunk

    length = asyncio.run(receive(odd(), tmp_path / "v", max_bytes=2 << 20, expected_bytes=None))
    assert (tmp_path / "v").read_bytes() == b"a" + MIB + b"bc" and length == len(MIB) + 3


@pytest.mark.parametrize(
    ("stream", "max_mib", "expected", "error"),
    [
        (sent(3), 2, None, TooLarge),
        (sent(1), 2, 3 << 20, TooLarge),
        (sent(1), 2, 2 << 20, UserError),
        (sent(1, ConnectionResetError()), 2, None, ConnectionResetError),
        (sent(1), 1 << 60, 1 << 60, NoRoom),
        (sent(1, OSError(28, "No space left on device")), 2, None, NoRoom),
    ],
    ids=["too large", "said to be too large", "broken off", "gone away", "no room for it", "disk full"],
)
def test_nothing_is_left_of_an_upload_that_does_not_come_to_its_end(tmp_path, stream, max_mib, expected, error):
    with pytest.raises(error) as refused:
        asyncio.run(receive(stream, tmp_path / "v", max_bytes=max_mib << 20, expected_bytes=expected))
    assert not list(tmp_path.iterdir()) and str(tmp_path) not in str(refused.value)


def test_a_limit_stops_an_upload_while_it_streams(tmp_path):
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield MIB

    with pytest.raises(TooLarge, match="at most 2 MiB"):
        asyncio.run(receive(endless(), tmp_path / "v", max_bytes=2 << 20, expected_bytes=None))
    assert given == 3


def test_a_video_is_looked_at(tmp_path):
    (tmp_path / "v.mp4").write_bytes(make_video(num_frames=16, fps=8))
    facts = look_at_upload(tmp_path / "v.mp4", DecodeConfig())
    assert facts.duration_s == 2.0 and facts.codec == "h264"
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize("content", [b"", b"no video", make_audio_only()], ids=["empty", "text", "sound"])
def test_what_is_no_video_is_refused_with_a_reason_that_names_no_folder(tmp_path, content):
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(UserError, match="the video cannot be used") as refused:
        look_at_upload(tmp_path / "v.mp4", DecodeConfig())
    assert str(tmp_path) not in str(refused.value)


def test_what_may_be_sent_and_narrated_is_not_refused_when_it_is_looked_at():
    app, narrates = AppJob(), NarrateJob().decode
    assert app.decode.max_bytes >= app.max_upload_mib << 20
    assert (app.decode.max_duration_s, app.decode.max_frames) == (narrates.max_duration_s, narrates.max_frames)
