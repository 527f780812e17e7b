"""Interlaced pictures, scaled and converted as whole ones."""

from av.filter import Graph
from av.video.frame import VideoFrame


def as_whole_picture(frame: VideoFrame) -> VideoFrame:
    """Return a frame without the flag that it is interlaced; the pixels are the same ones.

    FFmpeg's scaler (from 7.1 on) scales the two fields of a flagged frame each by itself and puts them together line
    by line: a small picture then has the combs of a large one, where FFmpeg's command line and players blend them.
    """
    if not frame.interlaced_frame:
        return frame
    # PyAV cannot write the flag, a filter can: a third of a millisecond.
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("setfield", "prog"), graph.add("buffersink")).configure()
    graph.push(frame)
    whole = graph.pull()
    assert isinstance(whole, VideoFrame)  # a buffersink of pictures gives nothing else
    return whole
