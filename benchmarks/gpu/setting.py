"""What a run was asked for, and its sizes, which a CPU has smaller."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """The device, the sizes, and how long one comparison may be repeated.

    Attributes:
        check_batch: clips of a batch whose gradients are compared with float64.
        max_batch: the largest batch that is tried.
        compared_batch: clips of a batch on which methods are compared, halved until all fit.
        product: side of the matrices whose product shows the chip's rate.
        seconds: of repeating one comparison.
        video: an MP4 to decode on the GPU; made here where it is not given.
    """

    device: str
    check_batch: int
    max_batch: int
    compared_batch: int
    product: int
    seconds: float
    video: str | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether there is a GPU to be measured."""
        return self.device == "cuda"


def setting_for(device: str, *, seconds_per_case: float, max_batch: int | None, video: str | None) -> Setting:
    """Choose the sizes for a device; most of a case's time is for building and warming up."""
    if device == "cuda":
        return Setting(
            device, 8, max_batch or 1024, min(64, max_batch or 64), 8192, min(10.0, seconds_per_case / 8), video
        )
    return Setting(device, 16, max_batch or 8, min(8, max_batch or 8), 512, min(0.5, seconds_per_case / 8), video)
