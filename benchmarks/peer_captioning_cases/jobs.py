"""One captioning job of one side, as a process of its own: `python jobs.py SETTING OUTPUT`, both paths.

Writes OUTPUT/captions.parquet (clip_id, text) when all is done. Plan, clips, pictures, prompt, seeds and the engine's
options are the same objects on both sides; what differs is who streams.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import DataContext, TaskPoolStrategy

from mama_ray.captioning.engines.generation import EngineConfig, SamplingConfig, clip_seed
from mama_ray.captioning.engines.vllm_prompt import LargestPicture
from mama_ray.captioning.engines.vllm_setup import engine_options, shown_options
from mama_ray.captioning.narrator.folder import embedded_narrator
from mama_ray.orchestration.captioning.committed import num_files, read_rows
from mama_ray.orchestration.captioning.decode import decode_chunk
from mama_ray.orchestration.captioning.job import CaptionJob, PoolConfig
from mama_ray.orchestration.captioning.parts import CHUNK_CLIPS, WORK_FOLDER
from mama_ray.orchestration.captioning.plan import CaptionPlan, find_captioner, how_to_show, load_clips, scan_pending
from mama_ray.orchestration.captioning.pool import PoolHistory, fit_pool
from mama_ray.orchestration.captioning.stream import caption_chunks
from mama_ray.orchestration.cluster.connect import connect

OURS, RAY_LLM = "ours", "ray.data.llm"
CAPTIONS = "captions.parquet"
_SPLIT = "train"


@dataclass(frozen=True)
class Setting:
    """What a job does.

    Attributes:
        side: OURS or RAY_LLM.
        shards: of the clips.
        model: folder; None is the embedded narrator.
        max_tokens: of each caption, exactly.
        concurrent_batches: of 32 clips in one engine at a time; None is each side's own default.
        logprobs: whether Ray's side asks for them, too; ours always does.
    """

    side: str
    shards: str
    model: str | None = None
    max_tokens: int = 32
    concurrent_batches: int | None = None
    logprobs: bool = False

    def save(self, path: Path) -> None:
        """Write it for a job's process."""
        path.write_text(json.dumps(asdict(self)))


def main(setting: Setting, output: Path) -> None:
    """Caption all clips of the split."""
    connect()
    plan = plan_of(setting, output)
    if setting.side == OURS:
        caption_ours(plan, setting)
    else:
        caption_by_ray_llm(plan, setting)


def plan_of(setting: Setting, output: Path) -> CaptionPlan:
    """Return the plan of our job, of which the other side takes clips, pictures, prompt and options."""
    job = CaptionJob()
    sampling = SamplingConfig(min_tokens=setting.max_tokens, max_tokens=setting.max_tokens)
    captioner = find_captioner(setting.model, None, frames=job.frames, side=None)
    table, *facts = load_clips(setting.shards, _SPLIT)
    (output / WORK_FOLDER).mkdir()  # as a job that enters its table does
    show = how_to_show(captioner, job.frames, job.decode)
    return CaptionPlan(table, *facts, str(output), setting.model, captioner, show, sampling, EngineConfig())


def caption_ours(plan: CaptionPlan, setting: Setting) -> None:
    """Caption by our pipeline, and read back what it committed."""
    pool = PoolConfig()
    if setting.concurrent_batches:
        pool = pool.model_copy(update={"concurrent_batches": setting.concurrent_batches})
    for _ in caption_chunks(plan, scan_pending(plan), fit_pool(pool, is_cluster=False), PoolHistory()):
        pass
    rows = [read_rows(plan, number)[0] for number in range(num_files(plan.num_clips))]
    write_captions(plan, pa.concat_tables(rows).select(["clip_id", "text"]))


def caption_by_ray_llm(plan: CaptionPlan, setting: Setting) -> None:
    """Caption as Ray's documentation has it: a processor of a dataset, written as Parquet."""
    from PIL import Image
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    DataContext.get_current().enable_progress_bars = False
    pending, prompt, sampling = scan_pending(plan), plan.captioner.prompt, plan.sampling
    pool = fit_pool(PoolConfig(), is_cluster=False)
    words = {"temperature": sampling.temperature, "min_tokens": sampling.min_tokens, "max_tokens": sampling.max_tokens}
    words |= {"logprobs": 0} if setting.logprobs else {}

    def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        columns = decode_chunk(plan, pending, int(batch["id"][0]))
        return {name: columns[name] for name in ("clip_id", "shown")}

    def preprocess(row: dict) -> dict:
        clip_id = str(row["clip_id"])
        return {
            "prompt": prompt,
            "multimodal_data": {"image": Image.fromarray(row.pop("shown"))},
            "multimodal_uuids": {"image": [clip_id]},
            "sampling_params": words | {"seed": clip_seed(sampling.seed, clip_id)},
        }

    batches = {} if setting.concurrent_batches is None else {"max_concurrent_batches": setting.concurrent_batches}
    config = vLLMEngineProcessorConfig(
        model_source=plan.model or str(embedded_narrator()),
        engine_kwargs=engine_options(plan.engine, shown_options(LargestPicture(plan.captioner.side)), on_cpu=True),
        placement_group_config={"bundles": [{"CPU": 1}]},  # else an engine waits for a GPU
        batch_size=CHUNK_CLIPS,
        # The prompt is rendered, and vLLM reads it as in our engine: none of these stages has anything to do.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        **batches,
    )
    tasks = {"num_cpus": pool.decode_cpus, "compute": TaskPoolStrategy(size=pool.max_decode_tasks)}
    shown = ray.data.range(pending.num_chunks, override_num_blocks=pending.num_chunks)
    shown = shown.map_batches(decode, batch_size=1, **tasks)
    processor = build_processor(
        config,
        preprocess=preprocess,
        postprocess=lambda row: {"clip_id": row["clip_id"], "text": row["generated_text"]},
        preprocess_map_kwargs=tasks,  # like decoding, so that the two are one task
    )
    folder = Path(plan.output) / "table"
    processor(shown).write_parquet(str(folder))
    write_captions(plan, pq.read_table(folder))


def write_captions(plan: CaptionPlan, captions: pa.Table) -> None:
    """Write where the program looks for them."""
    pq.write_table(captions, Path(plan.output) / CAPTIONS)


if __name__ == "__main__":
    main(Setting(**json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2]))
