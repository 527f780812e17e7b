"""Which source tree a long comparison ran on, and what it tells on the way."""

import json
import subprocess
import sys
from pathlib import Path

_DEPENDS_ON = (
    "mama_ray",
    "benchmarks/question_cases",
    "benchmarks/question_learning.py",
    "benchmarks/first_person.py",
    "benchmarks/audit_cases",
    "benchmarks/audit.py",
    "benchmarks/hypergradient_cases",
    "benchmarks/hypergradient_value.py",
)


def commit() -> str:
    """Return the commit of the source tree, marked where files that a run depends on are changed."""
    root = Path(__file__).resolve().parents[2]
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True)
    is_changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *_DEPENDS_ON], cwd=root).returncode != 0
    return head.stdout.strip() + (" with changes" if is_changed else "")


def tell(part: dict) -> None:
    """Show a part of a long run as soon as it is there."""
    print(json.dumps(part), file=sys.stderr, flush=True)
