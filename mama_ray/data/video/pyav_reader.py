"""Pixels by PyAV: the reader for anything, however damaged.

It decodes packet by packet, steps over packets that do not decode, and seeks to the key frame before a wanted frame
when that lies ahead. Frames that are not wanted and on which no other hangs are not decoded, where that is sure to
change nothing: most B-frames of H.264, which are a third to two thirds of a video's time. A file that shows damage on
the way is read again in whole, because a decoder patches what it lost with what it has.
"""

from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mama_ray.data.video.container import Deadline, open_video
from mama_ray.data.video.fields import as_whole_picture
from mama_ray.data.video.orientation import UPRIGHT, orientation_of
from mama_ray.data.video.packets import VideoIndex, decode_frames, first_packets, packets_again, seek_packets
from mama_ray.data.video.settings import DecodeConfig

# In these a packet is a whole frame; in others it may be one field of two, of which only one is wanted by its time.
_WHOLE_FRAMES = ("mov,mp4", "matroska")


class RgbScaler:
    """Makes RGB pixels of frames, all of one size, upright."""

    def __init__(self, width: int | None, height: int | None) -> None:
        self._width, self._height = width or None, height or None
        self._scaler = VideoReformatter()  # one for all frames: setting one up costs as much as decoding a small frame

    def to_rgb(self, frame: VideoFrame) -> np.ndarray:
        """Return one frame, uint8 (height, width, 3), scaled before it is turned upright."""
        orientation = orientation_of(frame)
        width, height = self._width, self._height
        if orientation.transposes:
            width, height = height, width
        # decord's scaler is bicubic too, so both readers give the same pixels.
        rgb = self._scaler.reformat(
            as_whole_picture(frame), format="rgb24", width=width, height=height, interpolation="BICUBIC", threads=1
        ).to_ndarray()
        return rgb if orientation == UPRIGHT else orientation.apply(rgb)


class OpenVideo:
    """A video that was opened to be indexed, and can be read from its beginning once more: opening one again takes as
    long as decoding some of its frames, for FFmpeg decodes a few to know what it has before it.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, closing: ExitStack) -> None:
        self.container, self.stream, self.closing = container, stream, closing

    @staticmethod
    def reads_again(index: VideoIndex) -> bool:
        """Tell whether a container of this kind goes back to its beginning as if it were opened anew."""
        return index.container.startswith(_WHOLE_FRAMES) and index.mended_pts is None and index.pts is not None


class PyavReader:
    """Reads frames by index at one output size, upright; first from the video that is `still_open`, if it is."""

    def __init__(
        self,
        data: bytes | str | Path,
        index: VideoIndex,
        width: int | None,
        height: int | None,
        config: DecodeConfig,
        *,
        still_open: OpenVideo | None = None,
    ) -> None:
        self._data, self._index, self._config, self._still_open = data, index, config, still_open
        self._scaler = RgbScaler(width, height)
        self._passes_over = index.codec == "h264" and OpenVideo.reads_again(index)
        self._is_damaged = False

    def read(self, indices: np.ndarray, deadline: Deadline) -> dict[int, np.ndarray]:
        """Return {index: uint8 frame (height, width, 3)} of those of the ascending `indices` that can be decoded."""
        frames = self._read(indices, deadline)
        if self._passes_over and (self._is_damaged or len(frames) < len(indices)):
            self._passes_over = False
            return self._read(indices, deadline)
        return frames

    def _read(self, indices: np.ndarray, deadline: Deadline) -> dict[int, np.ndarray]:
        frames: dict[int, np.ndarray] = {}
        if self._index.pts is None:
            self._read_by_count(indices, frames, deadline)
        elif self._index.mended_pts is not None:
            self._read_through(indices, frames, deadline, self._index.key_before(int(indices[0]), int(indices[-1])))
        else:
            self._read_by_seeking(indices, frames, deadline)
        return frames

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream, Iterator[Packet]]]:
        """Yield the video with its packets from the first: as it is open since it was indexed, else opened anew."""
        still_open, self._still_open = self._still_open, None
        if still_open is not None:
            with still_open.closing:
                packets = packets_again(still_open.container, still_open.stream, self._index)
                if packets is not None:
                    yield still_open.container, still_open.stream, packets
                    return
        with open_video(self._data, self._config) as (container, stream):
            yield container, stream, first_packets(container, stream, self._index)

    @property
    def _pts(self) -> np.ndarray:
        assert self._index.pts is not None  # where the container has none, frames are counted
        return self._index.pts

    def _read_by_count(self, indices: np.ndarray, frames: dict[int, np.ndarray], deadline: Deadline) -> None:
        wanted = set(indices.tolist())
        with open_video(self._data, self._config) as (container, stream):
            packets = first_packets(container, stream, self._index)
            for number, frame in enumerate(decode_frames(packets, stream, self._config, deadline)):
                if number in wanted:
                    frames[number] = self._scaler.to_rgb(frame)
                if number >= indices[-1]:
                    return

    def _read_through(
        self, indices: np.ndarray, frames: dict[int, np.ndarray], deadline: Deadline, key: int = 0
    ) -> None:
        """Go through the file once; where its clock is broken, decode from key frame number `key` on."""
        with open_video(self._data, self._config) as (container, stream):
            self._collect(first_packets(container, stream, self._index, key), stream, indices, frames, deadline)

    def _read_by_seeking(self, indices: np.ndarray, frames: dict[int, np.ndarray], deadline: Deadline) -> None:
        """Go through the wanted frames in groups without a key frame between them, each reached by one seek."""
        keys = np.flatnonzero(self._index.is_key)
        previous_key = np.searchsorted(keys, indices, side="right") - 1
        # A frame before the first presented key frame hangs on one that an edit list hides: decode from the beginning.
        key_of = np.where(previous_key >= 0, keys[previous_key], 0) if len(keys) else np.zeros_like(indices)
        starts = [0, *(np.flatnonzero(key_of[1:] > indices[:-1] + 1) + 1).tolist(), len(indices)]
        with self._opened() as (container, stream, from_first):
            packets: Iterator[Packet] | None = from_first
            for start, stop in pairwise(starts):
                if key_of[start] > 0:
                    packets = seek_packets(container, stream, self._index, int(key_of[start]))
                if packets is not None:
                    self._collect(packets, stream, indices[start:stop], frames, deadline)
        missing = np.array([index for index in indices.tolist() if index not in frames], dtype=np.int64)
        if len(missing) and key_of[-1] > 0:
            # Some containers cannot seek; one pass from the beginning decides what cannot be decoded.
            self._read_through(missing, frames, deadline)

    def _note_damage(self) -> None:
        self._is_damaged = True

    def _collect(
        self,
        packets: Iterator[Packet],
        stream: VideoStream,
        indices: np.ndarray,
        frames: dict[int, np.ndarray],
        deadline: Deadline,
    ) -> None:
        """Decode on from the current place and keep the frames of these numbers."""
        wanted = {int(self._pts[index]): index for index in indices.tolist()}
        last = int(self._pts[indices[-1]])
        if self._passes_over:
            packets = _passing_over(packets, stream, wanted)
        for frame in decode_frames(packets, stream, self._config, deadline, self._note_damage):
            self._is_damaged |= frame.is_corrupt
            if frame.pts in wanted:
                frames[wanted[frame.pts]] = self._scaler.to_rgb(frame)
            if frame.pts is not None and frame.pts >= last:
                return


def _passing_over(packets: Iterator[Packet], stream: VideoStream, wanted: Container[int]) -> Iterator[Packet]:
    """Yield the packets; the decoder passes over what is not wanted and what no other frame hangs on."""
    for packet in packets:
        is_wanted = packet.pts is None or packet.pts in wanted
        stream.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
        yield packet
