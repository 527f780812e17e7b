"""From features to results: ranks under each of the benchmark's protocols, with all that a result must name."""

import numpy as np

from mama_ray.evaluation.protocol import BenchmarkConfig, Protocol, Result
from mama_ray.evaluation.retrieval import recall_metrics
from mama_ray.evaluation.topics import head_tail_results, topic_results
from mama_ray.orchestration.evaluation.examples import pick_examples
from mama_ray.orchestration.evaluation.model import EvaluatedModel
from mama_ray.orchestration.evaluation.rank import Features, queries_of, rank_both_ways
from mama_ray.orchestration.evaluation.split import EvaluatedSplit


def compute_results(
    benchmark: BenchmarkConfig, model: EvaluatedModel, split: EvaluatedSplit, features: Features, *, num_examples: int
) -> list[Result]:
    """Rank under each of the benchmark's protocols; the plain one carries the examples.

    Clips that the split has not count as the benchmark's missing rule says; nobody knows their topics.
    """
    coverage, excludes = split.coverage, benchmark.missing == "excluded"
    absent = {"t2v": coverage.absent_texts(benchmark), "v2t": coverage.absent_clips(benchmark)}
    present = np.setdiff1d(features.clip_codes, list(features.errors) if excludes else [])
    topics, ids_sha256 = split.topics_and_hash(present, [] if excludes or not absent["v2t"] else split.refused.names())
    queries = queries_of(features, benchmark)
    query_topics = {
        way: [*(topics[row] for row in rows), *([None] * (0 if excludes else absent[way]))]
        for way, rows in queries.items()
    }
    wanted = {"off": [False], "on": [True], "both": [False, True]}[benchmark.dual_softmax]
    results = []
    for dual_softmax in wanted:
        ranks = rank_both_ways(features, benchmark, dual_softmax=dual_softmax, num_absent=absent)
        metrics = {f"{way}_{key}": value for way in ranks for key, value in recall_metrics(ranks[way]).items()}
        head, tail = head_tail_results(ranks, query_topics, split.train_counts)
        results.append(
            Result(
                label="dual_softmax" if dual_softmax else "plain",
                protocol=_protocol(
                    benchmark,
                    model,
                    num_queries={way: len(found) for way, found in ranks.items()},
                    ids_sha256=ids_sha256,
                    num_missing=len(features.errors) + absent["v2t"],
                    deviation=coverage.deviation(benchmark, len(features.errors)),
                    dual_softmax=dual_softmax,
                ),
                checkpoint=model.name,
                metrics=metrics,
                topics=topic_results(ranks, query_topics, split.train_counts),
                head=head,
                tail=tail,
                examples=() if dual_softmax else pick_examples(benchmark, split, features, ranks["t2v"], num_examples),
            )
        )
    return results


def _protocol(
    benchmark: BenchmarkConfig,
    model: EvaluatedModel,
    *,
    num_queries: dict[str, int],
    ids_sha256: str,
    num_missing: int,
    deviation: str,
    dual_softmax: bool,
) -> Protocol:
    return Protocol(
        dataset=benchmark.dataset,
        split=benchmark.split,
        ids_sha256=ids_sha256,
        num_videos=num_queries["v2t"],
        num_texts=num_queries["t2v"],
        caption_mode=benchmark.caption_mode,
        video_to_text=benchmark.video_to_text,
        text_length=model.text_length,
        num_frames=model.num_frames,
        sampling=model.sampling,
        image_size=model.transform.image_size,
        resize=str(model.transform),
        trim_s=benchmark.trim_s,
        ties=benchmark.ties,
        dual_softmax=dual_softmax,
        dual_softmax_negatives="as_is" if dual_softmax else None,
        missing_rule=benchmark.missing,
        num_missing=num_missing,
        deviation=deviation,
    )
