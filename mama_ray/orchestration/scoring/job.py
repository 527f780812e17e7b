"""What a scoring of a file of predictions is asked for."""

from typing import Literal

from mama_ray.config import Config
from mama_ray.evaluation.predictions import PredictionFormat


class ScoreJob(Config):
    """Answers that any model gave to a benchmark's questions and how their file counts, or scores of its clips."""

    predictions: str
    """File of the predictions, a path or a URI; of scores a .npz (docs/egocentric.md names its arrays)."""

    benchmark: str
    """Name of a file in configs/benchmark, of question answering or of annotated clips, or the path of such a YAML
    file."""

    questions: str | None = None
    """Questions table of the benchmark, which python -m mama_ray.data.questions makes of the official files."""

    annotations: str | None = None
    """Folder or URI of the official annotation files of a benchmark of annotated clips."""

    form: PredictionFormat | None = None
    """Form of the file; null is the benchmark's own."""

    answers: str | None = None
    """The list of answers that numbers are of, a JSON list as published or the answers.json of a run."""

    index_base: Literal[0, 1] = 0
    """Number of the first answer of the list, or of the first option: HQGA counts answers from 1, TranSTR from 0."""

    unknown: int | None = -1
    """Number of an answer off the list: 0 in HQGA's files, -1 in TranSTR's; null where there is none. Always wrong."""

    output: str | None = None
    """JSON file for the result, a path or a URI; null writes none."""
