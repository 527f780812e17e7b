"""The record of a run, written anew after every row, so that a kill loses nothing; and the table of all rows."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu.cases import Case
from benchmarks.gpu.rows import Row
from benchmarks.gpu.setting import Setting

ROOT = Path(__file__).resolve().parents[2]


class Report:
    """Grows row by row."""

    def __init__(self, output: Path, setting: Setting, presets: list[str]):
        self._output, self._began = output, time.monotonic()
        self.record: dict = {
            "command": " ".join(["python3", "-m", "benchmarks.gpu", *sys.argv[1:]]),
            "commit": commit(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "presets": presets,
            "setting": asdict(setting),
            "machine": {},
            "is_finished": False,
            "rows": [],
        }
        output.parent.mkdir(parents=True, exist_ok=True)

    def add(self, case: Case, row: Row) -> None:
        """Keep a row, on the disk too, and say it."""
        self.record["rows"].append({"case": case.name, "is_check": case.is_check} | asdict(row))
        self.write()
        print(f"{case.name}: {line_of(self.record['rows'][-1])}", file=sys.stderr, flush=True)

    def write(self) -> None:
        """Replace the file by what is known."""
        self.record["seconds"] = round(time.monotonic() - self._began, 1)
        partial = self._output.with_name(self._output.name + ".partial")
        partial.write_text(json.dumps(self.record, indent=1) + "\n")
        os.replace(partial, self._output)

    def finish(self) -> bool:
        """Write the whole; returns whether every check held."""
        self.record["is_finished"] = True
        self.record["all_checks_hold"] = self.all_checks_hold
        self.write()
        return self.all_checks_hold

    @property
    def all_checks_hold(self) -> bool:
        """Whether no check failed, broke off, or found no time."""
        return not any(
            row["is_check"] and row["verdict"] in ("failed", "error", "not run") for row in self.record["rows"]
        )

    def table(self) -> str:
        """Lay all rows out for reading."""
        width = max((len(row["case"]) for row in self.record["rows"]), default=0)
        lines = [f"{row['case']:<{width}}  {line_of(row)}" for row in self.record["rows"]]
        machine = ", ".join(f"{name} {value}" for name, value in self.record["machine"].items())
        end = "every check holds" if self.all_checks_hold else "NOT every check holds"
        return "\n".join([machine, *lines, f"{end}; {self.record['seconds']:.0f} s; {self._output}"])


def line_of(row: dict) -> str:
    """Return a row in words."""
    value = "" if row["value"] is None else f"{row['value']:.4g} {row['unit']}".rstrip()
    bound = "" if row["bound"] is None else f" (at most {row['bound']:.3g})"
    words = [f"{row['verdict']:<13}", f"{row['name']}:", value + bound, row["note"] and f"[{row['note']}]"]
    return " ".join(word for word in words if word)


def commit() -> str | None:
    """Return the commit that is checked out, None where the files alone were copied."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or None
