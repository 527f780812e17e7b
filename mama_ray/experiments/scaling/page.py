"""The tables of docs/scaling.md, made of what was measured and simulated: each stands between two comments of the page.

<!-- table: NAME -->
...
<!-- end -->
"""

import json
import re
from pathlib import Path

from mama_ray.experiments.scaling.inputs import REALITY, Assumptions
from mama_ray.experiments.scaling.results import control_rows, decode_rows
from mama_ray.experiments.scaling.videos import TRANSCODED

PAGE = Path(__file__).resolve().parents[3] / "docs" / "scaling.md"
_NUM_CLIPS = 100_000_000
_TABLE = re.compile(r"<!-- table: (.+?) -->\n(.*?)<!-- end -->", re.DOTALL)
_RESOURCES = {"engines": "engines", "decode CPUs": "decode CPUs", "storage requests": "S3 requests", "driver": "driver"}


def with_tables(page: str, tables: dict[str, str]) -> str:
    """Return the page with these tables in the places of their names; others stay as they are."""
    return _TABLE.sub(lambda found: _placed(found[1], tables.get(found[1], found[2])), page)


def tables_in(page: str) -> dict[str, str]:
    """Return the page's tables by name."""
    return {found[1]: found[2] for found in _TABLE.finditer(page)}


def tables_of_measurements(calibration: dict, assume: Assumptions) -> dict[str, str]:
    """Return the tables that need no simulation: what was measured, rules that follow, the check against real jobs."""
    return {
        "measured per clip": _measured_per_clip(calibration),
        "measured": _measured(calibration),
        "decode CPUs": _decode_cpus(decode_rows(assume, calibration)),
        "driver": _driver(control_rows(assume, calibration, _NUM_CLIPS)),
        "check": _check(json.loads(REALITY.read_text())),
    }


def tables_of_results(result: dict) -> dict[str, str]:
    """Return the simulated tables."""
    captioning = {name: rows for name, rows in result.items() if name.startswith("captioning, ")}
    return {
        "advice": _advice(result),
        **{name: _captioning(rows) for name, rows in captioning.items()},
        "training": _training(result["training"]),
    }


def _placed(name: str, table: str) -> str:
    return f"<!-- table: {name} -->\n{table}<!-- end -->"


def _table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _advice(result: dict) -> str:
    """Return five lines: what four sizes of corpus ask for, and what all of them do."""
    lines = []
    for row in result["advice"]:
        jobs, folders = row["jobs"], row["shard_folders"]
        lines.append(
            f"* **{_number(row['clips'])} clips**: captions on {row['gpus']} GPUs with {row['decode_cpus_per_gpu']} "
            f"decode CPUs for each, "
            + ("1 job, " if jobs == 1 else f"{jobs} jobs side by side over as many folders of shards, ")
            + (f"`prepare --shard_folders {folders}`: " if folders else "shards in one folder: ")
            + f"{_hours(row['caption_hours'])}, ${row['caption_usd']:,} (spot {_hours(row['spot_caption_hours'])}, "
            f"${row['spot_caption_usd']:,}). Clips made smaller: {row['smaller_cpu_hours']:,} CPU hours, "
            f"${row['smaller_usd']:,}. Training on these, on {row['train_gpus']} GPUs with "
            f"{row['train_decode_cpus_per_gpu']} decode CPUs for each: {_hours(row['epoch_hours'])}, "
            f"${row['epoch_usd']:,} an epoch."
        )
    cpus = {row["clips"]: row for row in result["decode CPUs per GPU"]}
    large, small = cpus["1280x720"], cpus[TRANSCODED]
    lines.append(
        "* **All of them**: `prepare --transcode.short_side 256` before training, which wants "
        f"{large['training']} decode CPUs per GPU from 720p and {small['training']} from clips made smaller "
        f"(captioning {large['captioning']} and {small['captioning']}); `pool.initial_size` = `pool.max_size`; "
        "`data.plan.run_length 32` where many GPUs train from one folder of an object store."
    )
    return "\n".join(lines) + "\n"


def _number(number: int) -> str:
    """Return a number of clips in words, where it is a round one."""
    for size, name in ((1_000_000_000, "billion"), (1_000_000, "million")):
        if number % size == 0:
            return f"{number // size} {name}"
    return f"{number:,}"


def _hours(hours: float) -> str:
    return f"{60 * hours:.0f} minutes" if hours < 1 else f"{hours:.3g} hours"


def _captioning(rows: list[dict]) -> str:
    has_spot = "spot_hours" in rows[0]
    head = ["GPUs", "jobs", "hours", "clips/s", "busiest", *_RESOURCES.values(), "starts", "$/million"]
    head += ["spot: hours", "$/million", "nodes lost"] * has_spot
    table = []
    for row in rows:
        busy = [f"{100 * row['busy'][name]:.0f}" for name in _RESOURCES]
        line = [row["gpus"], row["jobs"], f"{row['hours']:.3g}", f"{row['clips_per_s']:,}", row["bottleneck"], *busy]
        line += [f"{100 * row['starting_share']:.0f}", f"{row['usd_per_million']:.0f}"]
        if has_spot:
            line += [f"{row['spot_hours']:.3g}", f"{row['spot_usd_per_million']:.0f}", row["spot_losses"]]
        table.append(line)
    return _table(head, table)


def _driver(rows: list[dict]) -> str:
    columns = {
        f"chunks/s of {rows[0]['clips_per_chunk']} clips": lambda row: f"{row['chunks_per_s']:.0f}",
        "calls of actors/s": lambda row: f"{row['actor_calls_per_s']:.0f}",
        "driver's load, %": lambda row: f"{100 * row['driver_load']:.0f}",
    }
    head = ["GPUs", *(str(row["gpus"]) for row in rows)]
    return _table(head, [[name, *map(of, rows)] for name, of in columns.items()])


def _training(rows: list[dict]) -> str:
    by_case: dict[tuple[str, int], list[dict]] = {}
    for row in rows:
        by_case.setdefault((row["clips"], row["decode_cpus_per_gpu"]), []).append(row)
    gpus = [row["gpus"] for row in next(iter(by_case.values()))]
    head = [
        "clips",
        "decode CPUs per GPU",
        f"{gpus[0]} GPUs: clips/s, GPU busy",
        *(f"{count} GPUs" for count in gpus[1:]),
    ]
    return _table(
        head,
        [
            [clips, cpus, *(f"{row['clips_per_s']:,}, {100 * row['gpu_share']:.0f} %" for row in own)]
            for (clips, cpus), own in by_case.items()
        ],
    )


def _measured_per_clip(calibration: dict) -> str:
    sizes = calibration["decode"]
    lines: dict[str, tuple[str, float, str]] = {
        "video, MB (bit rate: assumed)": ("clip_mb", 1, ".2f"),
        "decode 96 frames, key frames, grid of 336 pixels, s": ("grid_s", 1, ".3g"),
        "hash of the video, ms": ("hash_video_s", 1e3, ".1f"),
        "hash of the grid, ms": ("hash_grid_s", 1e3, ".1f"),
        "training: 4 frames of 224 pixels, s": ("train_4_frames_s", 1, ".3g"),
        "training: 12 frames, s": ("train_12_frames_s", 1, ".3g"),
    }
    rows = [
        [name, *(f"{own[key] * scale:{form}}" for own in sizes.values())] for name, (key, scale, form) in lines.items()
    ]
    reads = calibration["storage"]["read_of_32"]
    rows.append(["GET + HEAD of 32 neighbours", *(f"{reads[size]['GET']} + {reads[size]['HEAD']}" for size in sizes)])
    return _table(["per clip", *sizes], rows)


def _measured(calibration: dict) -> str:
    control, table, storage = (calibration[name] for name in ("control", "table", "storage"))
    (check,) = [name for name in storage if name.startswith("check_of_")]

    def requests(what: str) -> str:
        return " + ".join(f"{count:,} {kind}" for kind, count in storage[what].items())

    one, eight = (
        {name: control[f"{name}_{engines}_engines"] for name in ("driver_cpu_s_per_chunk", "chunks_per_s")}
        for engines in (1, 8)
    )
    rows = [
        ["making a 720p clip smaller, CPU s", f"{calibration['transcode']['cpu_s_per_clip']:.2f}"],
        [
            "driver: CPU per chunk through the three operators, 1 and 8 engines",
            f"{1e3 * one['driver_cpu_s_per_chunk']:.1f} and {1e3 * eight['driver_cpu_s_per_chunk']:.1f} ms",
        ],
        [
            "driver: CPU and private memory per chunk for a pipeline's source",
            f"{1e3 * control['source_cpu_s_per_chunk']:.2f} ms, "
            f"{control['source_bytes_per_chunk'] / 1e3:.1f} kB",
        ],
        [
            "driver: private memory per chunk that passes",
            f"{control['driver_bytes_per_chunk_1_engines'] / 1e3:.1f} kB",
        ],
        ["ledger, two calls per chunk", f"{control['ledger_calls_per_s']:,} calls/s"],
        ["requests to an S3 server: a part written", requests("part")],
        ["a part listed and read", requests("part_read")],
        [f"the check of {int(check.rpartition('_')[2]):,} shards", requests(check)],
        ["commit of a part of 128 clips, without the network", f"{1e3 * table['commit_s_per_part']:.1f} ms"],
        ["index, bytes per clip: file, in memory with all columns", f"{table['index_file_bytes_per_clip']:.0f}, "
         f"{table['index_memory_bytes_per_clip']:.0f}"],
        ["part, caption table, bytes per clip with a caption of 40 words", f"{table['part_bytes_per_clip']:.0f}, "
         f"{table['table_bytes_per_clip']:.0f}"],
        ["listing and reading the names of parts, per part", f"{1e6 * table['scan_s_per_part']:.0f} us"],
        ["end of the job (gate, files of the table), CPU per clip", f"{1e3 * table['finish_cpu_s_per_clip']:.2f} ms"],
        ["LLaVA-1.5's image processor, in the engine's own thread",
         f"{1e3 * calibration['engine']['llava_processor_s_per_clip']:.1f} ms"],
    ]  # fmt: skip
    return _table(["measured", ""], rows)


def _decode_cpus(rows: list[dict]) -> str:
    head = [
        "clips of 10 s", "decode_s (measured)", "read_s (cited latency)", "CPUs per captioning H100",
        "training: decode_s", "read_s", "CPUs per training H100, 12 frames, meta step every 2nd",
    ]  # fmt: skip
    columns = ("clips", "decode_s", "read_s", "captioning", "train_decode_s", "train_read_s", "training")
    return _table(head, [[_short(row[name]) for name in columns] for row in rows])


def _check(reality: dict) -> str:
    head = [
        "regime", "clips", "decode_s", "engine alone, clips/s", "bottleneck", "predicted clips/s", "measured",
        "predicted / measured",
    ]  # fmt: skip
    columns = (
        "clips", "decode_s", "engine_clips_per_s", "bottleneck", "predicted_clips_per_s", "measured_clips_per_s",
        "predicted_over_measured",
    )  # fmt: skip
    return _table(head, [[name, *(_short(row[column]) for column in columns)] for name, row in reality.items()])


def _short(value: object) -> str:
    """Return a number with three digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
