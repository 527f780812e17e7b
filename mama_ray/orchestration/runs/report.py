"""From run folders to one report page: what the demo shows of its three runs, a training and an evaluation of one."""

from collections.abc import Mapping

from mama_ray.evaluation.protocol import Result, check_comparable, describe_protocol
from mama_ray.reporting.content import Report, RunReport
from mama_ray.reporting.page import write_report
from mama_ray.reporting.run_summary import load_result, load_retrievals, summarise_run
from mama_ray.storage.places import Place, join_uri


def report_run(
    name: str, run_uri: str, shards: str, *, benchmark: str, facts: Mapping[str, str] | None = None
) -> tuple[RunReport, Result]:
    """Collect a run's curves and what it reached on `benchmark`: recall, and the clips that were retrieved."""
    run_folder = Place.of(run_uri)
    result = load_result(run_folder, benchmark)
    retrievals = load_retrievals(Place.of(shards), result.examples)
    return summarise_run(name, run_folder, result=result, retrievals=retrievals, facts=facts), result


def write_page(
    directory_uri: str,
    title: str,
    runs: list[RunReport],
    results: Mapping[str, Result] | None,
    *,
    lead: str = "",
    facts: Mapping[str, str] | None = None,
) -> str:
    """Write the page of one run, or of several beside each other, with what they reached; returns its URI.

    Raises UserError where the results are of different protocols: no page compares a whole benchmark with a part of it.
    """
    check_comparable(results or {})
    result = next(iter(results.values()), None) if results else None
    report = Report(
        title=title,
        runs=tuple(runs),
        lead=lead,
        protocol=describe_protocol(result.protocol) if result else "",
        num_gallery=result.protocol.num_videos if result else None,
        num_queries={"t2v": result.protocol.num_texts, "v2t": result.protocol.num_videos} if result else {},
        facts=facts or {},
    )
    write_report(Place.of(directory_uri), report)
    return join_uri(directory_uri, "index.html")
