"""What a local Ray node tells Prometheus."""

import re
import time
import urllib.request

import ray


def endpoint() -> str:
    """Return the URL of the node's page for Prometheus."""
    node = ray.nodes()[0]
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def read_page() -> str:
    """Return the page as it is now."""
    with urllib.request.urlopen(endpoint(), timeout=60) as answer:
        return answer.read().decode()


def page_with(wanted: dict, *, run: str = "night") -> str:
    """Return the endpoint's page as soon as it has what is wanted; workers report to it every ten seconds."""
    deadline = time.monotonic() + 60
    page = ""
    while time.monotonic() < deadline:
        page = read_page()
        if all(value_of(page, *key, run=run) is not None for key in wanted):
            break
        time.sleep(1)
    return page


def value_of(page: str, name: str, tag: str | None, *, run: str = "night") -> float | None:
    """Return the value of a metric of a run, of any tag or the one given; None where the page has none."""
    lines = [line for line in page.splitlines() if line.startswith(f"{name}{{") and f'run="{run}"' in line]
    values = [float(line.rpartition(" ")[2]) for line in lines if tag is None or tag in line]
    return values[0] if values else None


def names_of(page: str, *, run: str) -> set[str]:
    """Return the names of the metrics that a run has on the page."""
    return {found[1] for found in re.finditer(r"^(\w+)\{(.*)\} ", page, re.M) if f'run="{run}"' in found[2]}
