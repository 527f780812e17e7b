"""The rows of docs/scaling.md's tables: simulations at several sizes, and the rules that follow from the figures."""

from mama_ray.experiments.scaling.captioning import simulate
from mama_ray.experiments.scaling.inputs import (
    Assumptions,
    Settings,
    batch_requests,
    caption_read_seconds,
    caption_scenario,
    decode_cpus_per_gpu,
    decode_seconds,
    engine_rate,
    train_decode_seconds,
    train_read_seconds,
    train_scenario,
    train_step_ratio,
)
from mama_ray.experiments.scaling.scenario import CaptionScenario
from mama_ray.experiments.scaling.sizes import captions_usd, corpus_sizes
from mama_ray.experiments.scaling.training import TrainRun, communication_s, simulate_training
from mama_ray.experiments.scaling.videos import TRANSCODED
from mama_ray.orchestration.captioning.parts import chunk_clips_of

GPUS = (8, 16, 32, 64, 128, 256, 512)
SHARD_FOLDERS = 256
GPUS_PER_JOB = 64
# What one would take for so many clips: GPUs of captioning and of training.
ADVISED = {1_000_000: (8, 8), 10_000_000: (16, 16), 100_000_000: (64, 64), 1_000_000_000: (512, 64)}
_NEED_FOLDERS = 10_000_000  # clips, in 39,000 shards
_MOST_SEEDS = 4  # of jobs side by side
_WORTH_IT = 1.03  # a job more must save more time than that


def compute_results(assume: Assumptions, calibration: dict, num_clips: int) -> dict:
    """Return every table of docs/scaling.md."""
    chosen = chosen_settings(assume, calibration)

    def rows(settings: Settings) -> list[dict]:
        return [caption_row(assume, calibration, num_clips, gpus, settings, with_spot=False) for gpus in GPUS]

    def rows_in_jobs(settings: Settings) -> list[dict]:
        jobs = {gpus: settings.model_copy(update={"num_jobs": max(1, gpus // GPUS_PER_JOB)}) for gpus in GPUS}
        return [caption_row(assume, calibration, num_clips, gpus, own) for gpus, own in jobs.items()]

    return {
        "advice": [advice_row(assume, calibration, clips, *gpus) for clips, gpus in advised(num_clips).items()],
        "captioning, nothing chosen": rows(Settings()),
        "captioning, CPUs and folders": rows(chosen),
        "captioning, in jobs": rows_in_jobs(chosen),
        "sizes": {name: float(f"{value:.4g}") for name, value in corpus_sizes(assume, calibration, num_clips).items()},
        "control plane": control_rows(assume, calibration, num_clips),
        "decode CPUs per GPU": decode_rows(assume, calibration),
        "training": train_rows(assume, calibration),
    }


def advised(num_clips: int) -> dict[int, tuple[int, int]]:
    """Return the sizes to advise for: all where the corpus is the usual one, else the smallest."""
    return ADVISED if num_clips >= 100_000_000 else {num_clips: ADVISED[1_000_000]}


def chosen_settings(assume: Assumptions, calibration: dict, size: str = "1280x720") -> Settings:
    """Return the settings that the rules ask for: as many CPUs for decoding, and shards in folders."""
    wanted = decode_row(assume, calibration, size)["captioning"]
    extra = max(0, wanted - assume.decode_cpus_per_gpu)
    return Settings(size=size, shard_folders=SHARD_FOLDERS, extra_decode_cpus_per_gpu=extra)


def caption_row(
    assume: Assumptions, calibration: dict, num_clips: int, num_gpus: int, settings: Settings, *, with_spot: bool = True
) -> dict:
    """Simulate a job, or several side by side, on demand and on spot nodes."""
    scenario = caption_scenario(assume, calibration, num_clips=num_clips, num_gpus=num_gpus, settings=settings)
    run = simulate(scenario)
    starting_s = run.num_pipelines * scenario.engine_start_s
    starting_s += scenario.source_s_per_chunk * scenario.num_clips / scenario.chunk_clips
    row = {
        "gpus": num_gpus, "jobs": settings.num_jobs, "clips_per_chunk": scenario.chunk_clips,
        "pipelines": run.num_pipelines, "hours": round(run.wall_s / 3600, 2),
        "clips_per_s": round(run.clips_per_s * settings.num_jobs), "bottleneck": run.bottleneck,
        "starting_share": round(starting_s / run.wall_s, 3),
        "busy": {resource: round(share, 3) for resource, share in run.busy.items()},
        "usd_per_million": _usd(assume, calibration, scenario, settings, run.wall_s, spot=False),
    }  # fmt: skip
    if not with_spot:
        return row
    scenario = caption_scenario(
        assume, calibration, num_clips=num_clips, num_gpus=num_gpus, spot=True, settings=settings
    )
    seeds = range(min(settings.num_jobs, _MOST_SEEDS))
    runs = [simulate(scenario.model_copy(update={"seed": seed})) for seed in seeds]
    each = settings.num_jobs / len(runs)
    mean_s = sum(run.wall_s for run in runs) / len(runs)
    return row | {
        "spot_hours": round(max(run.wall_s for run in runs) / 3600, 2),
        "spot_usd_per_million": _usd(assume, calibration, scenario, settings, mean_s, spot=True),
        "spot_losses": round(each * sum(run.num_losses for run in runs)),
        "spot_clips_redone": round(each * sum(run.clips_redone for run in runs)),
        "spot_decode_hours_redone": round(each * sum(run.decode_s_redone for run in runs) / 3600, 1),
    }


def _usd(
    assume: Assumptions, calibration: dict, scenario: CaptionScenario, settings: Settings, wall_s: float, *, spot: bool
) -> float:
    """Return the price of a million captions."""
    gpu_hours = wall_s / 3600 * scenario.num_engines
    price = captions_usd(
        assume,
        corpus_sizes(assume, calibration, scenario.num_clips, settings.size),
        gpu_hours=gpu_hours,
        cpu_hours=gpu_hours * settings.extra_decode_cpus_per_gpu,
        num_clips=scenario.num_clips,
        spot=spot,
    )
    return round(price, 1)


def advice_row(
    assume: Assumptions, calibration: dict, num_clips: int, num_gpus: int, num_train_gpus: int
) -> dict[str, float]:
    """Return what so many clips take: captions of 720p clips, clips made smaller, and an epoch of training on these."""
    settings = chosen_settings(assume, calibration)
    if num_clips < _NEED_FOLDERS:
        settings = settings.model_copy(update={"shard_folders": 0})
    settings = settings.model_copy(
        update={"num_jobs": best_num_jobs(assume, calibration, num_clips, num_gpus, settings)}
    )
    row = caption_row(assume, calibration, num_clips, num_gpus, settings)
    cpus = max(decode_row(assume, calibration, TRANSCODED)["training"], assume.decode_cpus_per_gpu)
    run = simulate_training(
        train_scenario(
            assume, calibration, num_gpus=num_train_gpus, decode_cpus=cpus, size=TRANSCODED,
            shard_folders=settings.shard_folders,
        )
    )  # fmt: skip
    smaller_h = num_clips * calibration["transcode"]["cpu_s_per_clip"] / 3600
    epoch_h = num_clips / run.clips_per_s / 3600
    extra_usd = (cpus - assume.decode_cpus_per_gpu) * assume.cpu_hour_usd
    return {
        "clips": num_clips, "gpus": num_gpus, "jobs": settings.num_jobs, "shard_folders": settings.shard_folders,
        "decode_cpus_per_gpu": assume.decode_cpus_per_gpu + settings.extra_decode_cpus_per_gpu,
        "caption_hours": row["hours"], "caption_usd": round(row["usd_per_million"] * num_clips / 1e6),
        "spot_caption_hours": row["spot_hours"],
        "spot_caption_usd": round(row["spot_usd_per_million"] * num_clips / 1e6),
        "smaller_cpu_hours": round(smaller_h), "smaller_usd": round(smaller_h * assume.cpu_hour_usd),
        "train_gpus": num_train_gpus, "train_decode_cpus_per_gpu": cpus, "epoch_hours": round(epoch_h, 2),
        "epoch_usd": round(epoch_h * num_train_gpus * (assume.gpu_hour_usd + extra_usd)),
    }  # fmt: skip


def best_num_jobs(assume: Assumptions, calibration: dict, num_clips: int, num_gpus: int, settings: Settings) -> int:
    """Return the fewest jobs of whole nodes, a power of two, of which no more would save more than 3 % of the time."""
    walls_s = {}
    for power in range((num_gpus // assume.engines_per_node).bit_length()):
        own = settings.model_copy(update={"num_jobs": 1 << power})
        scenario = caption_scenario(assume, calibration, num_clips=num_clips, num_gpus=num_gpus, settings=own)
        walls_s[own.num_jobs] = simulate(scenario).wall_s
    return next(count for count, wall_s in walls_s.items() if wall_s <= _WORTH_IT * min(walls_s.values()))


def control_rows(assume: Assumptions, calibration: dict, num_clips: int) -> list[dict]:
    """Return the driver's load at each size, and what starts take of a pipeline's time."""
    control, chunk_clips = calibration["control"], chunk_clips_of(num_clips)
    per_chunk_s = control["driver_cpu_s_per_chunk_8_engines"]
    rows = []
    for gpus in GPUS:
        chunks_per_s = gpus * engine_rate(assume, calibration) / chunk_clips
        rows.append({
            "gpus": gpus, "clips_per_chunk": chunk_clips, "chunks_per_s": round(chunks_per_s, 1),
            "actor_calls_per_s": round(3 * chunks_per_s, 1), "driver_load": round(chunks_per_s * per_chunk_s, 3),
        })  # fmt: skip
    return rows


def decode_rows(assume: Assumptions, calibration: dict) -> list[dict]:
    """Return the rules' CPUs per GPU for clips of every size."""
    return [decode_row(assume, calibration, size) for size in calibration["decode"]]


def decode_row(assume: Assumptions, calibration: dict, size: str) -> dict:
    """Return a clip's seconds, and the CPUs per GPU that captioning and training want."""
    chunk_clips = chunk_clips_of(100_000_000)
    decode_s, read_s = decode_seconds(calibration, size), caption_read_seconds(assume, calibration, size, chunk_clips)
    train_s = train_decode_seconds(calibration, size)
    train_read_s = train_read_seconds(assume, calibration, size) / assume.train_batch_per_gpu
    train_rate = assume.train_clips_per_s_per_gpu / train_step_ratio(assume)
    return {
        "clips": size, "decode_s": round(decode_s, 4), "read_s": round(read_s, 4),
        "captioning": decode_cpus_per_gpu(engine_rate(assume, calibration), decode_s, read_s),
        "train_decode_s": round(train_s, 4), "train_read_s": round(train_read_s, 4),
        "training": decode_cpus_per_gpu(train_rate, train_s, train_read_s),
    }  # fmt: skip


def train_rows(assume: Assumptions, calibration: dict) -> list[dict]:
    """Simulate training with the CPUs that GPU nodes have, and with those that the rule asks for."""
    rows = []
    for size in ("1280x720", "320x240", TRANSCODED):
        wanted = decode_row(assume, calibration, size)["training"]
        for cpus in dict.fromkeys([assume.decode_cpus_per_gpu, wanted]):
            for gpus in (8, 64, 512):
                scenario = train_scenario(
                    assume, calibration, num_gpus=gpus, decode_cpus=cpus, size=size, shard_folders=SHARD_FOLDERS
                )
                run: TrainRun = simulate_training(scenario)
                gets = sum(batch_requests(calibration["decode"][size]["clip_mb"] * 1e6, scenario.batch_size_per_worker))
                rows.append({
                    "clips": size, "gpus": gpus, "decode_cpus_per_gpu": cpus, "clips_per_s": round(run.clips_per_s),
                    "gpu_share": round(run.gpu_share, 3), "waiting_for_clips": round(run.waiting_share, 3),
                    "communication_s_per_step": round(communication_s(scenario), 4),
                    "requests_per_s": round(run.clips_per_s * gets / scenario.batch_size_per_worker),
                })  # fmt: skip
    return rows
