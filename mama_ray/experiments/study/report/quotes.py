"""What README and docs quote of a study, written into them: a text that no hand keeps up cannot go out of date.

A document marks a place by `<!-- study: NAME -->` and `<!-- end of study: NAME -->` on lines of their own; what stands
between is written anew from the results. Where several studies write into a document, NAME is `PART/QUOTE`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from mama_ray.errors import UserError, unknown_name
from mama_ray.experiments.study.report.claim_tables import correct_claims, show_verdict
from mama_ray.experiments.study.report.claims import UNKNOWN, judge, lead_text, show_count
from mama_ray.experiments.study.report.compare import (
    MAIN,
    ORACLE,
    PLAIN,
    Experiments,
    compare,
    compare_runs,
    count_seeds,
    describe_regime,
    list_factors,
    list_methods,
    mean_over_factors,
    select_runs,
    summarise,
    take_metric,
)
from mama_ray.experiments.study.report.contrasts import BOTH, LEARNED_METHODS
from mama_ray.experiments.study.report.significance import corrected_of, show_corrected, show_detectable
from mama_ray.experiments.study.report.table import table_markdown
from mama_ray.experiments.study.report.tables import methods_table
from mama_ray.experiments.study.report.tuned_margins import with_margin
from mama_ray.experiments.study.results import ExperimentResults
from mama_ray.reporting.sweep_page import show_interval
from mama_ray.storage.places import Place

# In the order of the short table; what has no runs is left out.
NAMES = {
    "pretrained": "no fine-tuning",
    PLAIN: "plain InfoNCE",
    "uniform_meta4": "plain InfoNCE, four times the meta-set's clips among its own",
    "uniform_long": "plain InfoNCE for as many seconds as learned weights take",
    "keep_lowest": "the lowest losses of each batch",
    "mixture": "a mixture of two Gaussians on the clips' losses (DivideMix's rule)",
    "symmetric": "symmetric cross-entropy",
    "joint": "a weight net on the training loss, without meta-set",
    "learned": "**learned weights**",
    "learned_meta4": "learned weights, four times the meta-set's clips among the training clips",
    "mama": "learned weights and margin",
    "learned_captions": "**learned weights and generated captions**",
    "mama_captions": "full MAMA: weights, margin, generated captions",
    ORACLE: "an oracle that leaves false pairs out",
    "oracle_captions": "the oracle with generated captions",
}
# Where everybody trains on the meta-set's clips four times over.
EQUAL_DATA = {
    "uniform_meta4": "plain InfoNCE",
    "keep_lowest_meta4": "the lowest losses of each batch",
    "mixture_meta4": "a mixture of two Gaussians on the clips' losses (DivideMix's rule)",
    "symmetric_meta4": "symmetric cross-entropy",
    "joint_meta4": "a weight net on the training loss, without meta-set",
    "joint_source_meta4": "such a net that sees the source",
    "learned_meta4": "learned weights that see the loss alone",
    "learned_source_meta4": "**learned weights that see the source**",
    "oracle_meta4": "an oracle that leaves false pairs out",
}
_PLACE = re.compile(r"(<!-- study: ((?:\w+/)?\w+) -->\n).*?(<!-- end of study: \2 -->)", re.DOTALL)


def list_quotes(experiments: Experiments) -> dict[str, str]:
    """Return the texts that documents may ask for by name, as Markdown."""
    quotes = {"lead": lead_text(experiments), "verdicts": _verdicts(experiments), "source": _source(experiments)}
    if MAIN in experiments:
        quotes["main_table"] = short_table(experiments[MAIN])
        table = methods_table(experiments)
        quotes["methods"] = "" if table is None else table_markdown(table)
    if BOTH in experiments and set(LEARNED_METHODS) & set(list_methods(experiments[BOTH])):
        quotes["both_table"] = both_table(experiments[BOTH])
    return quotes


def both_table(experiment: ExperimentResults) -> str:
    """Return the comparison on two kinds of data: mean R@1 on each, and by how much learned weights lead over both."""
    best = [method for method in LEARNED_METHODS if method in list_methods(experiment)][-1]
    kinds, own = list_factors(experiment), mean_over_factors(experiment, best)
    methods = [method for method in EQUAL_DATA if method in list_methods(experiment)]
    leads = {name: compare(own, mean_over_factors(experiment, name)) for name in methods if name != best}
    corrected = dict(zip(leads, corrected_of(list(leads.values())), strict=True))
    head = (
        "method",
        *(f"R@1, {kind}" for kind in kinds),
        f"{EQUAL_DATA[best]} lead by",
        "p, corrected",
        "could have seen",
    )
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for method in methods:
        means = [summarise(take_metric(select_runs(experiment, method, kind))) for kind in kinds]
        cells = [EQUAL_DATA[method], *("–" if mean is None else f"{mean.mean:.1f}" for mean in means), "", "", ""]
        if (lead := leads.get(method)) is not None:
            cells[-3:] = show_interval(lead, signed=True), show_corrected(corrected[method]), ""
            cells[-1] = show_detectable(lead) if judge(lead) == UNKNOWN else ""
        lines.append(f"| {' | '.join(cells)} |")
    notes = (
        f"{show_count(count_seeds(experiment), 'seed')}. Leads are of the mean over both kinds, paired by seed; ± is "
        "half of their 95 % interval. p: by Holm's rule for the rows of this table."
    )
    return "\n".join(lines) + f"\n\n{notes}"


def short_table(experiment: ExperimentResults) -> str:
    """Return the comparison of all methods in words: mean R@1, difference to plain InfoNCE, p corrected for all."""
    methods, plain = list_methods(experiment), select_runs(experiment, PLAIN)
    found = {method: select_runs(experiment, method) for method in methods if method != PLAIN}
    differences = {method: compare_runs(runs, plain) for method, runs in found.items()}
    corrected = dict(zip(differences, corrected_of(list(differences.values())), strict=True))
    lines = ["| method | R@1 | over plain InfoNCE | p, corrected | could have seen |", "|---|---|---|---|---|"]
    for method in (name for name in NAMES if name in methods):
        mean, difference = summarise(take_metric(select_runs(experiment, method))), differences.get(method)
        name = with_margin(experiment, method, NAMES[method])
        cells = [name, "–" if mean is None else f"{mean.mean:.1f}", "", "", ""]
        if difference is not None:
            is_open = judge(difference) == UNKNOWN
            cells[2:4] = show_interval(difference, signed=True), show_corrected(corrected[method])
            cells[4] = show_detectable(difference) if is_open else ""
        lines.append(f"| {' | '.join(cells)} |")
    notes = (
        f"{show_count(count_seeds(experiment), 'seed')}; {describe_regime(experiment)}. Differences are paired by "
        "seed, ± is half of their 95 % interval. p: by Holm's rule for all methods of the study. Could have seen: "
        "where nothing is told apart, the smallest difference that would have shown four times of five."
    )
    return "\n".join(lines) + f"\n\n{notes}"


def _verdicts(experiments: Experiments) -> str:
    lines, last = [], None
    for claim, corrected in correct_claims(experiments):
        if claim.claim != last:
            lines.append(f"* **{claim.claim}:**")
        last = claim.claim
        text = f"  * {claim.measured}: {show_verdict(claim, corrected)}, {claim.found}"
        if claim.verdict == UNKNOWN and claim.interval is not None:
            text += f" (could have seen {show_detectable(claim.interval)})"
        lines.append(text + (f" [{claim.regime}]" if claim.regime else ""))
    return "\n".join(lines)


def _source(experiments: Experiments) -> str:
    commits = sorted({commit for one in experiments.values() for commit in one.commit.split(", ")})
    commands = sorted({one.command for one in experiments.values()})
    runs = sum(len(one.runs) for one in experiments.values())
    return f"{runs} runs, by `{'`, `'.join(commands)}` at {', '.join(commits)}."


def fill_document(text: str, quotes: Mapping[str, str], *, part: str = "", source: str = "the document") -> str:
    """Return a document with the marked places of a part written anew, those of others as they are; UserError for a
    name that there is no quote of, and for a place without end.
    """

    def write(found: re.Match[str]) -> str:
        of_part, _, name = found[2].rpartition("/")
        if of_part != part:
            return found[0]
        if name not in quotes:
            raise unknown_name(f"quote of a study in {source}", name, quotes)
        return f"{found[1]}{quotes[name]}\n{found[3]}"

    if text.count("<!-- study: ") != len(_PLACE.findall(text)):
        raise UserError(f"a marked place of {source} has no end", wanted="<!-- end of study: NAME -->")
    return _PLACE.sub(write, text)


def write_quotes(path: Path, experiments: Experiments, *, part: str = "") -> None:
    """Write the quotes of a study into a document that marks their places, those of its part."""
    quotes = list_quotes(experiments)
    Place.of(path).write_whole(fill_document(path.read_text(), quotes, part=part, source=path.name))
