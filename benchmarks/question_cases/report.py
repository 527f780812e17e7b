"""What the runs say together: means and paired differences over seeds, with Student's intervals, as JSON and tables."""

from collections.abc import Mapping, Sequence

from mama_ray.reporting.intervals import mean_interval

Runs = Mapping[tuple, Mapping[int, dict]]
"""By (model, method, share of swapped answers, whether it sees, number of steps), what each seed's run found."""


def interval_of(values: Sequence[float]) -> dict:
    """Return the mean and the ends of its 95 % interval, with the values by seed."""
    found = mean_interval(values)
    half = found.half_width
    ends = {"low": None, "high": None} if half is None else {"low": found.mean - half, "high": found.mean + half}
    return _rounded({"mean": found.mean, **ends, "by_seed": list(values)})


def difference_of(runs: Mapping[int, dict], others: Mapping[int, dict], kind: str = "all") -> dict | None:
    """Return the interval of the paired difference in accuracy, over seeds that both have; None without one."""
    seeds = [seed for seed in sorted(runs) if seed in others]
    values = [runs[seed]["accuracy"][kind] - others[seed]["accuracy"][kind] for seed in seeds]
    return interval_of(values) if values else None


def accuracy_of(runs: Mapping[int, dict], kind: str = "all") -> dict:
    """Return the interval of the accuracy."""
    return interval_of([runs[seed]["accuracy"][kind] for seed in sorted(runs)])


def twins_of(runs: Runs, model: str, num_steps: int) -> dict:
    """Compare a model with its blind twin, by type of question."""
    seeing, blind = (runs[model, "uniform", 0.0, sees, num_steps] for sees in (True, False))
    kinds = next(iter(seeing.values()))["accuracy"]
    return {
        kind: {
            "seeing": accuracy_of(seeing, kind),
            "blind": accuracy_of(blind, kind),
            "difference": difference_of(seeing, blind, kind),
        }
        for kind in kinds
    }


def methods_of(runs: Runs, model: str) -> list[dict]:
    """Compare each method with uniform weights and no margin on the same data, and tell how well weights find swaps."""
    rows = []
    for (name, method, swapped, sees, num_steps), found in runs.items():
        if name != model or not sees:
            continue
        plain = runs.get((model, "uniform", swapped, True, num_steps), {})
        row = {"method": method, "swapped": swapped, "num_steps": num_steps, "accuracy": accuracy_of(found)}
        row["over_uniform"] = None if method == "uniform" else difference_of(found, plain)
        if all("auc" in one for one in found.values()):
            row["auc_by_quarter"] = [
                interval_of([found[seed]["auc"][quarter] for seed in sorted(found)]) for quarter in range(4)
            ]
        rows.append(row)
    return rows


def table_of(report: dict) -> str:
    """Lay the report out as tables in Markdown."""
    lines = []
    for model, part in report["models"].items():
        if "twins" in part:
            lines += ["", f"| {model} | with pixels | without | difference |", "|---|---|---|---|"]
            for kind, row in part["twins"].items():
                cells = [f"{row[name]['mean']:.1f}" for name in ("seeing", "blind")]
                lines.append(f"| {kind} | {' | '.join(cells)} | {show(row['difference'], sign='+')} |")
        lines += [
            "",
            f"| {model} | steps | swapped | accuracy | over uniform | AUC by quarter |",
            "|---|---|---|---|---|---|",
        ]
        for row in part["methods"]:
            areas = ", ".join(show(area, digits=2) for area in row.get("auc_by_quarter", []))
            cells = [row["method"], str(row["num_steps"]), f"{row['swapped']:.0%}", show(row["accuracy"])]
            cells += ["" if row["over_uniform"] is None else show(row["over_uniform"], sign="+"), areas]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def show(interval: dict, *, digits: int = 1, sign: str = "") -> str:
    """Show a mean and its interval."""
    text = f"{interval['mean']:{sign}.{digits}f}"
    if interval["low"] is None:
        return text
    return f"{text} ({interval['low']:{sign}.{digits}f} to {interval['high']:{sign}.{digits}f})"


def _rounded(record: dict) -> dict:
    return {name: _round(value) for name, value in record.items()}


def _round(value: float | list[float] | None) -> float | list[float] | None:
    if isinstance(value, list):
        return [round(one, 4) for one in value]
    return None if value is None else round(value, 4)
