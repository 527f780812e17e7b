"""The page, the pictures and the tables of a controlled study, drawn from its records alone.

`write_study_report` writes the page, `write_study_figures` the PNGs that other documents show, and
`study_tables_markdown` (tables.py) gives the same tables as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mama_ray.experiments.study.report.claim_tables import change_table, claims_table
from mama_ray.experiments.study.report.claims import lead_text
from mama_ray.experiments.study.report.compare import MAIN, Experiments, check_experiments, count_seeds
from mama_ray.experiments.study.report.contrasts import BOTH
from mama_ray.experiments.study.report.drawing import Drawing
from mama_ray.experiments.study.report.factor_plots import factor_drawing, inner_lr_drawings, margin_drawing
from mama_ray.experiments.study.report.goals import list_goals
from mama_ray.experiments.study.report.plots import (
    epochs_drawing,
    gains_drawing,
    methods_drawing,
    topics_drawing,
    weight_curve_drawing,
)
from mama_ray.experiments.study.report.run_tables import failures_table, settings_table, sources_table, tuning_table
from mama_ray.experiments.study.report.table import Table
from mama_ray.experiments.study.report.tables import (
    factor_table,
    methods_table,
    study_tables_markdown,
    topics_table,
    weights_table,
)
from mama_ray.reporting.document import PAGE_NAME, Figure, render_template
from mama_ray.storage.places import Place

__all__ = ["render_study_report", "study_tables_markdown", "write_study_figures", "write_study_report"]

TITLE = "Does MAMA work, and what does it cost?"
# In the order of the page; experiments that are not listed follow in theirs.
NOISE = ("incomplete", "wrong", "swapped", "zipf")
MARGINS = ("margin", "margin_incomplete", "margin_wrong", "margin_scratch")
INNER = ("inner_lr", "learned_relative")
PARTS = ("captions", "grid")
META = ("meta_size", "meta_degraded", "weight_net")


@dataclass(frozen=True)
class Section:
    """A section of the page: figures and then tables, under one heading."""

    title: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    text: str = ""


def write_study_report(folder: Place, experiments: Experiments) -> str:
    """Write `<folder>/index.html` whole or not at all and return its URI.

    UserError for no experiments and for records that contradict each other.
    """
    place = folder / PAGE_NAME
    place.write_whole(render_study_report(experiments))
    return place.uri


def write_study_figures(folder: Path, experiments: Experiments) -> list[Path]:
    """Write the figures that documents show as PNGs, each where its experiment is there; returns their paths."""
    check_experiments(experiments)
    inner = inner_lr_drawings(experiments) if "inner_lr" in experiments else []
    drawings = {
        "weight_curve": weight_curve_drawing(experiments),
        "methods": methods_drawing(experiments),
        "inner_lr": inner[0] if inner else None,
        "margin": margin_drawing(experiments),
        "epochs": epochs_drawing(experiments),
        "topics": topics_drawing(experiments),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [drawing.save(folder / f"{name}.png") for name, drawing in drawings.items() if drawing is not None]


def render_study_report(experiments: Experiments) -> str:
    """Return the page as HTML text."""
    check_experiments(experiments)
    seeds = {run.seed for experiment in experiments.values() for run in experiment.runs}
    facts = {
        "experiments": str(len(experiments)),
        "training runs": f"{sum(len(experiment.runs) for experiment in experiments.values()):,}",
        "seeds": str(len(seeds)),
    }
    if MAIN in experiments:
        facts["seeds, all methods"] = str(count_seeds(experiments[MAIN]))
    return render_template(
        "study.html.j2",
        package="mama_ray.experiments.study.report",
        title=TITLE,
        kind="controlled study",
        lead=lead_text(experiments),
        facts=facts,
        is_single=False,
        goals=list_goals(experiments),
        sections=[section for section in _sections(experiments) if section.figures or section.tables],
    )


def _sections(experiments: Experiments) -> list[Section]:
    known = {MAIN, *INNER, *MARGINS, *NOISE, *PARTS, *META}
    margins = [name for name in experiments if name in MARGINS or name.startswith("margin_")]
    others = [name for name in experiments if name not in known and name not in margins]
    paper = [gains_drawing, weight_curve_drawing, topics_drawing]
    inner = [name for name in INNER if name in experiments]
    inner_drawings = [found for name in inner for found in inner_lr_drawings(experiments, name)]
    return [
        Section("What the paper claims, and what was found", tables=_present([claims_table(experiments)])),
        Section("What would change our mind", tables=_present([change_table(experiments)])),
        Section(
            "The paper's figures beside this study's",
            _drawn([draw(experiments) for draw in paper]),
            _present([topics_table(experiments)]),
            "The paper's values were read off its figures. They come from other models and real data: compare shapes.",
        ),
        Section("As training goes on", _drawn([epochs_drawing(experiments)])),
        Section("The lookahead's step", _drawn(inner_drawings), _factor_tables(experiments, inner)),
        Section("The margin", _drawn([margin_drawing(experiments)]), _factor_tables(experiments, margins)),
        _factor_section("By kind of noise, and by how uneven the topics are", experiments, NOISE),
        Section(
            "All methods",
            _drawn([methods_drawing(experiments)]),
            _present([methods_table(experiments), *(weights_table(experiments, name) for name in (MAIN, BOTH))]),
        ),
        _factor_section("Captions", experiments, PARTS),
        _factor_section("Other experiments", experiments, others),
        _failure_section(experiments),
        Section("Tuning", tables=_present([tuning_table(experiments)])),
        Section(
            "How it was run",
            tables=(sources_table(experiments), settings_table(experiments)),
        ),
    ]


def _factor_section(title: str, experiments: Experiments, names: Sequence[str]) -> Section:
    names = [name for name in names if name in experiments]
    drawings = [factor_drawing(experiments, name) for name in names]
    return Section(title, _drawn(drawings), _factor_tables(experiments, names))


def _failure_section(experiments: Experiments) -> Section:
    section = _factor_section("Failure modes", experiments, META)
    tables = _present([failures_table(experiments)])
    text = (
        "What breaks it: a weight net that collapses or weighs all samples alike, a meta-set that is small or not what "
        "it should be."
    )
    return Section(section.title, section.figures, (*tables, *section.tables), text)


def _factor_tables(experiments: Experiments, names: Sequence[str]) -> tuple[Table, ...]:
    tables = [factor_table(experiments, name) for name in names]
    return tuple(table for table in tables if table.rows)


def _drawn(drawings: Sequence[Drawing | None]) -> tuple[Figure, ...]:
    return tuple(drawing.for_page() for drawing in drawings if drawing is not None)


def _present(tables: Sequence[Table | None]) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None and table.rows)
