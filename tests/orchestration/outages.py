"""Jobs whose storage fails in the midst of their work, one after the other in one process and one Ray.

    python -m tests.orchestration.outages UPSTREAM BUCKET RESULTS.json [prepare] [train]

UPSTREAM is an S3 server whose BUCKET holds shards/, videos/ and annotations.jsonl. Each job is begun through a proxy
that comes to refuse what it reads, then started again; train is followed by an evaluation. RESULTS.json gets what was
told of each failure, and what came of the jobs in the end.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.orchestration.runs.training_runs import SETTINGS
from tests.storage.s3_faults import Refusing, serving


def main(upstream: str, bucket: str, results: str, *jobs: str) -> None:
    """Run the jobs; Ray must start after the environment names the proxy."""
    found: dict = {"told": {}}
    with serving(Refusing(upstream)) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint or ""
        from mama_ray.orchestration.cluster.connect import connect
        from mama_ray.orchestration.evaluation.job import EvaluateJob
        from mama_ray.orchestration.evaluation.run import evaluate
        from mama_ray.orchestration.prepare.job import PrepareJob
        from mama_ray.orchestration.prepare.run import run as prepare
        from mama_ray.orchestration.training.job import TrainJob
        from mama_ray.orchestration.training.run import train

        connect(num_cpus=4)
        uri = f"s3://{bucket}"

        def refused(name: str, work: Callable[[], object], status: int, code: str, *, below: str, passes: int) -> None:
            proxy.refuse_from(status, code, below=below, passes=passes)
            found["told"][name] = told_by(work)
            found["told"][f"{name}: refused requests"] = proxy.num_refused
            proxy.be_calm()

        def start_prepare() -> str:
            places = {"videos": f"{uri}/videos", "annotations": f"{uri}/annotations.jsonl", "output": f"{uri}/prepared"}
            return prepare(PrepareJob(**places, clips_per_shard=4))

        def start_train(run: str) -> str:
            places = {"shards": f"{uri}/shards", "storage": f"{uri}/runs", "run": run}
            return train(TrainJob.model_validate(SETTINGS | places | {"num_workers": 1}))

        if "prepare" in jobs:
            refused("prepare", start_prepare, 403, "ExpiredToken", below=".mp4", passes=6)
            found["prepare"] = start_prepare()
        if "train" in jobs:
            start_train("whole")
            num_requests = proxy.num_passed
            refused("train", lambda: start_train("cut"), 403, "ExpiredToken", below=".tar", passes=num_requests // 2)
            found["train"] = start_train("cut")

            job = EvaluateJob(checkpoint=f"{uri}/runs/cut", benchmark="embedded", batch_size=4)
            refused("evaluate", lambda: evaluate(job), 404, "NoSuchKey", below=".tar", passes=3)
            (result,) = [one for one in evaluate(job).file.results if one.label == "plain"]
            found["evaluate"] = {"num_missing": result.protocol.num_missing, "num_videos": result.protocol.num_videos}
    Path(results).write_text(json.dumps(found))


def told_by(work: Callable[[], object]) -> str:
    """Return the class and text of what a job ends with."""
    from mama_ray.orchestration.cluster.entry import find_user_error

    try:
        return f"not refused: {work()}"
    except Exception as error:
        known = find_user_error(error)
        return f"{type(known).__name__}: {known}"


if __name__ == "__main__":
    main(*sys.argv[1:])
