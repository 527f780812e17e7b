"""What the chip itself can do: its rate by the data sheet, and those of one large product and one large copy here."""

import statistics
from collections.abc import Iterator

import torch

from benchmarks.gpu.rows import Row, absent, figure
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.timing import in_turns, spread

# Dense bf16 products per second by the makers' data sheets, without sparsity; the first name that is in the device's.
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "A100": 312e12,
    "A10G": 70e12, "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12,
}  # fmt: skip


def peak_of(device_name: str) -> float | None:
    """Return the data sheet's floating-point operations per second in bf16, None for an unknown chip."""
    return next((peak for name, peak in PEAKS.items() if name in device_name), None)


def product_rate(setting: Setting) -> tuple[float, str]:
    """Return operations per second of a product of random square matrices in bf16, and its range in words."""
    side = setting.product
    torch.manual_seed(0)
    left, right = (torch.randn(side, side, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
    repeats = 10 if setting.is_gpu else 1

    def multiply() -> None:
        for _ in range(repeats):
            left @ right

    seconds = in_turns({"product": multiply}, setting.device, seconds=min(2.0, setting.seconds))["product"]
    rates = [repeats * 2 * side**3 / value for value in seconds]
    return statistics.median(rates), spread([rate / 1e12 for rate in rates])


def ceilings(setting: Setting, _: str) -> Iterator[Row]:
    """Measure a product and a copy, and name the data sheet's rate."""
    rate, words = product_rate(setting)
    name = f"bf16 product of {setting.product} x {setting.product}"
    yield figure(name, rate / 1e12, "TFLOP/s", words)
    peak = peak_of(torch.cuda.get_device_name()) if setting.is_gpu else None
    if peak is None:
        yield absent("share of the data sheet's peak", "no peak known for this device")
    else:
        yield figure("product's share of the data sheet's peak", rate / peak, "", f"{peak / 1e12:.0f} TFLOP/s")
    source = torch.randint(0, 255, (2**30 if setting.is_gpu else 2**24,), device=setting.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copies = in_turns({"copy": lambda: target.copy_(source)}, setting.device, seconds=min(2.0, setting.seconds))["copy"]
    rates = [2 * source.nbytes / value / 1e9 for value in copies]
    yield figure("copy within memory, read and written", statistics.median(rates), "GB/s", spread(rates))
