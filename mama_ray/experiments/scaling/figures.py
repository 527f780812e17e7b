"""The two figures of docs/scaling.md."""

from pathlib import Path

from mama_ray.experiments.scaling.inputs import Assumptions, engine_rate, train_scenario
from mama_ray.experiments.scaling.results import SHARD_FOLDERS, decode_row
from mama_ray.experiments.scaling.training import simulate_training
from mama_ray.experiments.scaling.videos import TRANSCODED

_COLOURS = {
    "engines": "#1b6ca8",
    "decode CPUs": "#d1495b",
    "storage requests": "#edae49",
    "storage bandwidth": "#8d99ae",
    "driver": "#2e933c",
    "ledger": "#6a4c93",
}
_SIZE_COLOURS = {"320x240": "#2e933c", "640x360": "#edae49", "1280x720": "#d1495b", TRANSCODED: "#1b6ca8"}


def draw_figures(result: dict, assume: Assumptions, calibration: dict, folder: Path) -> None:
    """Write scaling_captioning.png and scaling_decode_cpus.png."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    _draw_captioning(result, folder / "scaling_captioning.png")
    _draw_decode_cpus(assume, calibration, folder / "scaling_decode_cpus.png")


def _draw_captioning(result: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    plain, chosen, jobs = (result[f"captioning, {name}"] for name in ("nothing chosen", "CPUs and folders", "in jobs"))
    gpus = [row["gpus"] for row in plain]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.9), layout="constrained")
    first = plain[0]
    engine_hours = first["hours"] * first["busy"]["engines"] * first["gpus"]
    axes[0].loglog(gpus, [engine_hours / number for number in gpus], "k--", label="engines never idle")
    shown = (
        (plain, "o-", "#d1495b", "20 CPUs per GPU, one folder"),
        (chosen, "^-", "#edae49", "CPUs by the rule, 256 folders"),
        (jobs, "s-", "#1b6ca8", "the same, 64 GPUs a job"),
    )
    for rows, style, colour, label in shown:
        axes[0].loglog(gpus, [row["hours"] for row in rows], style, color=colour, label=label)
    axes[0].set(ylabel="hours for all clips", title="Wall time")
    axes[0].set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    for axis, rows, title in ((axes[1], chosen, "Busy, one job"), (axes[2], jobs, "Busy, 64 GPUs a job")):
        for name, colour in _COLOURS.items():
            axis.semilogx(gpus, [100 * row["busy"][name] for row in rows], "o-", color=colour, label=name, markersize=4)
        axis.set(ylabel="share of the wall time, %", ylim=(0, 104), title=title)
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    axes[2].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axis in axes:
        axis.set_xlabel("GPUs")
        axis.set_xticks(gpus, [str(number) for number in gpus])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_decode_cpus(assume: Assumptions, calibration: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.7), layout="constrained")
    cpus = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96]
    rate = engine_rate(assume, calibration)
    for size, colour in _SIZE_COLOURS.items():
        own = decode_row(assume, calibration, size)
        per_clip_s = own["decode_s"] + own["read_s"]
        shares = [100 * min(1.0, number / (rate * per_clip_s)) for number in cpus]
        axes[0].semilogx(cpus, shares, "o-", color=colour, label=f"{size}, 10 s", markersize=4)
        shares = []
        for number in cpus:
            scenario = train_scenario(
                assume, calibration, num_gpus=8, decode_cpus=number, size=size, shard_folders=SHARD_FOLDERS
            )
            run = simulate_training(scenario)
            shares.append(100 * run.gpu_share)
        axes[1].semilogx(cpus, shares, "o-", color=colour, label=f"{size}, 10 s", markersize=4)
    axes[0].set(ylabel="GPU busy, %", title=f"Captioning, {rate:.0f} clips/s of a GPU")
    axes[1].set(ylabel="GPU busy, %", title="Training, 12 frames, meta step every 2nd, 8 GPUs")
    for axis in axes:
        axis.axvline(assume.decode_cpus_per_gpu, color="k", linestyle=":", linewidth=1)
        place = {"rotation": 90, "ha": "right", "va": "bottom" if axis is axes[0] else "top", "fontsize": 7}
        axis.text(assume.decode_cpus_per_gpu, 3 if axis is axes[0] else 101, "CPUs of a p5 node", **place)
        axis.set(xlabel="decode CPUs per GPU", ylim=(0, 104))
        axis.set_xticks([1, 2, 4, 8, 16, 32, 64, 96], ["1", "2", "4", "8", "16", "32", "64", "96"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
