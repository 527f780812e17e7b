"""The simulation of a captioning job: pipelines one after another, each of which drains before the next begins.

Time is counted in seconds from the moment at which the first one begins.
"""

from collections import Counter
from random import Random

from mama_ray.experiments.scaling.pipeline import Nodes, Pipeline
from mama_ray.experiments.scaling.scenario import CaptionRun, CaptionScenario


def simulate(scenario: CaptionScenario) -> CaptionRun:
    """Run the job to its last commit: its whole pipelines, or some of them for all, and what is left."""
    s = scenario
    num_chunks = -(-s.num_clips // s.chunk_clips)
    num_full, rest = divmod(num_chunks - 1, s.chunks_per_pipeline)  # the last pipeline has the last chunk, maybe short
    nodes = Nodes([0.0] * -(-s.num_engines // s.engines_per_node), Random(s.seed))
    num_sampled = min(num_full, s.max_pipelines if s.losses_per_node_hour else 1)
    totals: Counter[str] = Counter()
    commits: list[tuple[float, int]] = []
    now, last_clips = 0.0, s.num_clips - num_full * s.chunks_per_pipeline * s.chunk_clips
    works = [(s.chunks_per_pipeline * s.chunk_clips, num_full / max(1, num_sampled))] * num_sampled
    for clips, weight in [*works, (last_clips, 1.0)]:
        pipeline = Pipeline(s, nodes, clips, now)
        now = pipeline.run()
        commits += pipeline.commits
        for name, value in pipeline.totals().items():
            totals[name] += weight * value
    assert rest + 1 == -(-last_clips // s.chunk_clips)
    wall_s = max(totals.pop("wall_s"), 1e-9)
    redone = {name: totals.pop(name) for name in ("num_committed", "clips_redone", "decode_s_redone", "num_losses")}
    shares = {name: seconds / wall_s for name, seconds in totals.items()}
    return CaptionRun(
        wall_s, round(redone["num_committed"]), round(redone["clips_redone"]), redone["decode_s_redone"],
        round(redone["num_losses"]), num_full + 1, shares, commits,
    )  # fmt: skip
