"""Decoding on the GPU, where one of the libraries that can is installed: frames per second over the same on the CPU."""

import importlib
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.gpu.rows import Row, absent, figure, one_line
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.timing import in_turns, ratio, spread

NUM_FRAMES, SIDE, FPS = 120, 320, 24


def decode(setting: Setting, _: str) -> Iterator[Row]:
    """Decode all frames of one H.264 video with every library at hand."""
    with tempfile.TemporaryDirectory(prefix="mama_ray-gpu-") as folder:
        path = Path(setting.video) if setting.video else write_video(Path(folder) / "video.mp4")
        if path is None:
            yield absent("decode", "no video: give --video FILE, or install av, which makes one here")
            return
        on_cpu = decode_with_av if importlib.util.find_spec("av") else None
        for name, (package, open_decoder) in DECODERS.items():
            if importlib.util.find_spec(package) is None:
                yield absent(f"decode by {name}", f"the package {package} is not installed")
                continue
            if not setting.is_gpu:
                yield absent(f"decode by {name}", "needs --device cuda")
                continue
            try:
                work = open_decoder(path)
                num_frames = work()
            except Exception as error:  # no decoder on this chip, no library of the driver's: each has its own error
                yield absent(f"decode by {name}", one_line(error))
                continue
            works = {"gpu": work} | ({"cpu": lambda: on_cpu(path)} if on_cpu else {})
            times = in_turns(works, setting.device, seconds=setting.seconds)
            rates = [num_frames / value for value in times["gpu"]]
            yield figure(f"decode by {name}", statistics.median(rates), "frames/s", spread(rates))
            if on_cpu:
                median, words = ratio(times["cpu"], times["gpu"])
                yield figure(f"decode by {name}, times av on the CPU", median, "", words)


def write_video(path: Path) -> Path | None:
    """Write an H.264 video of moving noise, or return None where there is no encoder."""
    if importlib.util.find_spec("av") is None:
        return None
    from mama_ray.data.synthetic.encode import encode_mp4

    noise = np.random.default_rng(0).integers(0, 256, (SIDE // 16, SIDE // 16, 3), dtype=np.uint8)
    picture = noise.repeat(16, axis=0).repeat(16, axis=1)
    frames = np.stack([np.roll(picture, 2 * number, axis=1) for number in range(NUM_FRAMES)])
    path.write_bytes(encode_mp4(frames, FPS))
    return path


def decode_with_av(path: Path) -> int:
    """Decode on the CPU; returns the number of frames."""
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _av_on_gpu(path: Path) -> Callable[[], int]:
    import av
    from av.codec.hwaccel import HWAccel, hwdevices_available

    if "cuda" not in hwdevices_available():
        raise RuntimeError(f"this build of av knows {hwdevices_available() or 'no devices'} and not cuda")

    def work() -> int:
        accelerator = HWAccel(device_type="cuda", allow_software_fallback=False)
        with av.open(str(path), hwaccel=accelerator) as container:
            return sum(1 for _ in container.decode(video=0))

    return work


def _torchcodec(path: Path) -> Callable[[], int]:
    decoders = importlib.import_module("torchcodec.decoders")

    def work() -> int:
        decoder = decoders.VideoDecoder(str(path), device="cuda")
        return len(decoder.get_frames_in_range(0, len(decoder)).data)

    return work


def _py_nv_video_codec(path: Path) -> Callable[[], int]:
    codec = importlib.import_module("PyNvVideoCodec")

    def work() -> int:
        decoder = codec.SimpleDecoder(str(path), gpu_id=0, use_device_memory=True)
        return len(decoder.get_batch_frames_by_index(list(range(len(decoder)))))

    return work


# Name, package, and what opens a video; calling the result decodes all of it and returns the number of frames.
DECODERS: dict[str, tuple[str, Callable[[Path], Callable[[], int]]]] = {
    "torchcodec": ("torchcodec", _torchcodec),
    "PyNvVideoCodec": ("PyNvVideoCodec", _py_nv_video_codec),
    "av": ("av", _av_on_gpu),
}
