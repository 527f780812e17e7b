"""The claims as tables: what was found for each, and what would have to be found to change the verdict."""

from mama_ray.experiments.study.report.claims import ONE_SEED, UNKNOWN, Claim, list_claims
from mama_ray.experiments.study.report.compare import Experiments, bounds
from mama_ray.experiments.study.report.significance import (
    corrected_of,
    is_told_apart,
    show_corrected,
    show_detectable,
    turning_mean,
)
from mama_ray.experiments.study.report.table import Table
from mama_ray.reporting.intervals import Interval
from mama_ray.reporting.sweep_page import show_interval


def claims_table(experiments: Experiments) -> Table:
    """Return claim, what was measured, what was found, verdict and what there was to gain."""
    head = ("claim", "measured here", "found", "holds here?", "p, corrected", "could have seen", "where")
    head += ("oracle − plain there",)
    rows, last = [], None
    for claim, corrected in correct_claims(experiments):
        name = "" if claim.claim == last else claim.claim
        seen = show_detectable(claim.interval) if claim.verdict == UNKNOWN else ""
        there = show_interval(claim.recoverable, signed=True)
        verdict = show_verdict(claim, corrected)
        told = (claim.measured, claim.found, verdict, show_corrected(corrected), seen, claim.regime, there)
        rows.append((name, *told))
        last = claim.claim
    note = (
        "Verdicts follow from the 95 % interval: yes where it lies above 0 on the side of the claim, no where it lies "
        "below, else not told apart. The p value is Student's, for all rows by Holm's rule (the same runs once). "
        "A verdict that it does not bear out says so. Could have seen: the smallest true difference that as many seeds "
        "tell apart four times of five, before any correction. All of it holds for this study's generated data and "
        "small models."
    )
    return Table("Claims", head, tuple(rows), note, is_words=True)


def correct_claims(experiments: Experiments) -> list[tuple[Claim, float | None]]:
    """Return the claims with their p values, corrected for all of them together."""
    claims = list_claims(experiments)
    return list(zip(claims, corrected_of([claim.interval for claim in claims]), strict=True))


def show_verdict(claim: Claim, corrected: float | None) -> str:
    """Return a verdict, and whether it stands after the correction."""
    is_drawn = claim.verdict == "yes" or claim.verdict.startswith("no:")
    has_fallen = is_drawn and corrected is not None and not is_told_apart(corrected)
    return f"{claim.verdict}, but not after correction" if has_fallen else claim.verdict


def change_table(experiments: Experiments) -> Table:
    """Return, for every claim that has an interval, the verdict and what would turn it: the reviewer's page."""
    rows, last = [], None
    for claim, corrected in correct_claims(experiments):
        if claim.interval is None or claim.verdict == ONE_SEED:
            continue
        name = "" if claim.claim == last else claim.claim
        turns = describe_change(claim.interval, claim.verdict, corrected)
        rows.append((name, claim.measured, show_verdict(claim, corrected), turns, claim.regime))
        last = claim.claim
    note = (
        "What no number here can turn: models of 0.3 M parameters, generated clips, faults that a program made. A "
        "regime in which real captions are wrong in another way, a larger pretrained model, or a control that is not "
        "among the methods would be a reason to run it again, and a verdict that then differs would count."
    )
    head = ("claim", "measured here", "now", "what would change our mind", "where")
    return Table("What would change our mind", head, tuple(rows), note, is_words=True, is_folded=True)


def describe_change(interval: Interval, verdict: str, corrected: float | None) -> str:
    """Return in words which further result would turn a verdict."""
    if verdict == UNKNOWN:
        low, high = bounds(interval)
        return f"more seeds; until then all from {low:+.2g} to {high:+.2g} is open"
    text = f"as many new seeds with a mean of {turning_mean(interval):+.2g}: then all together are not told apart"
    if corrected is not None and not is_told_apart(corrected):
        text += "; it does not stand after correction, so new seeds alone can bear it out"
    return text
