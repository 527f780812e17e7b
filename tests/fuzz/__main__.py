"""Read mutated files in this process, within limits of time and memory, and print what came of it as JSON.

python -m tests.fuzz --tars 300 --small 300 --seed 0
"""

import argparse
import collections
import json
import logging
import random
import resource
import shutil
import signal
import tempfile
import traceback
import warnings
from pathlib import Path

import torch

from tests.fuzz.kinds import EXPECTED, SMALL, TARS, TOLD, Kind

SECONDS_PER_FILE = 20
MEMORY_BYTES = 1 << 30  # more than the process has when it begins


class Hang(BaseException):
    """A file took longer than SECONDS_PER_FILE."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tars", type=int, default=300)
    parser.add_argument("--small", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _raise_hang)
    counts: dict[str, collections.Counter] = {}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for kinds, number in ((TARS, options.tars), (SMALL, options.small)):
            good = {name: _prepare(kind, Path(scratch) / name.replace(" ", "-")) for name, kind in kinds.items()}
            _limit_memory()
            before = _peak_bytes()
            for case in range(number):
                name = list(kinds)[case % len(kinds)]
                outcome = _read_one(kinds[name], name, good[name], f"{options.seed}/{case}")
                kept = outcome if outcome in ("read", "told") else "FAULT"
                counts.setdefault(name, collections.Counter())[kept] += 1
                if kept == "FAULT":
                    faults.append(f"{name} {options.seed}/{case}: {outcome}")
            counts[f"{'tars' if kinds is TARS else 'small'}: MiB more at the peak"] = collections.Counter(
                {"MiB": (_peak_bytes() - before) >> 20}
            )
    print(json.dumps({"counts": counts, "faults": faults}, indent=1))  # noqa: T201 - the program's result


def _prepare(kind: Kind, folder: Path) -> tuple[Path, bytes]:
    folder.mkdir()
    kind.make(folder)
    kind.read(folder)  # a good file is read, and all that reading loads is loaded
    return folder, (folder / kind.file).read_bytes()


def _read_one(kind: Kind, name: str, good: tuple[Path, bytes], seed: str) -> str:
    folder, data = good
    (folder / kind.file).write_bytes(kind.mutate(data, random.Random(seed)))
    signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_FILE)
    try:
        kind.read(folder)
        return "read"
    except (*TOLD, *EXPECTED.get(name, ())) as error:
        text = str(error)
        return "told" if text.isprintable() or name == "clip" else f"not printable: {text!r}"
    except BaseException as error:  # a panic of Rust is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return "".join(traceback.format_exception(error)[-6:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        (folder / kind.file).write_bytes(data)
        for other in kind.others:
            (folder / other).unlink(missing_ok=True)
        shutil.rmtree(folder / "nothing", ignore_errors=True)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _raise_hang(signum: int, frame: object) -> None:
    raise Hang(f"longer than {SECONDS_PER_FILE} s")


if __name__ == "__main__":
    main()
