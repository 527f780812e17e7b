"""The one table of metric names: writers refuse a name that is not here, readers take theirs from here.

Keys are flat and slashed. A part in angle brackets stands for a name that a run chooses: `eval/<benchmark>/t2v_R@1`.
"""

import re
from dataclasses import dataclass

from mama_ray.errors import UserError, unknown_name

RETRIEVAL_KEYS = tuple(
    f"{way}_{key}" for way in ("t2v", "v2t") for key in ("R@1", "R@5", "R@10", "median_rank", "mean_rank")
)


@dataclass(frozen=True)
class Metric:
    """A metric's name or pattern, its unit and what it says; `is_curve` marks lists, which TensorBoard does not get."""

    name: str
    unit: str
    meaning: str
    is_curve: bool = False


_TRAIN = (
    Metric("train/loss", "nats", "weighted loss of the global batch"),
    Metric("train/unweighted_loss", "nats", "mean per-sample loss of the global batch, without weights"),
    Metric("train/contrastive_loss", "nats", "mean contrastive term, where there is a task"),
    Metric("train/task_loss", "nats", "mean task term, eta * task_i"),
    Metric("train/gradient_norm", "", "norm of the model's gradient before clipping"),
    Metric("train/learning_rate", "", "learning rate of the model's optimiser"),
    Metric("train/logit_scale", "", "exp of the learned log scale"),
    Metric("train/logit_bias", "", "the learned bias of a sigmoid loss"),
    Metric("train/epoch", "epochs", "epoch of the step, a fraction"),
    Metric("train/samples_seen", "clips", "clips seen since step 0"),
)
_META = (
    Metric("meta/loss", "nats", "mean loss of the meta batch at the lookahead"),
    Metric("meta/loss_before_lookahead", "nats", "mean loss of the same meta batch before the lookahead"),
    Metric("meta/above_chance", "share", "clips of the meta batch that are told apart worse than by guessing"),
    Metric("meta/below_half_chance", "share", "those with less than half of the loss of who guesses"),
    Metric("meta/direction_norm", "", "norm of the meta loss's gradient at the lookahead"),
    Metric("meta/hypergradient_norm", "", "norm of the weight net's gradient"),
    Metric("meta/margin", "radians", "mean of a learned margin over the batch"),
    Metric("meta/margin_spread", "radians", "standard deviation of a learned margin over the batch"),
    Metric("meta/generated_share", "share", "mean of the learned share of generated captions in their clips' losses"),
    Metric("meta/generated_share_spread", "share", "standard deviation of the learned share of generated captions"),
    Metric("meta/generated_share_gradient_norm", "", "norm of the meta loss's gradient in what gives the share"),
    Metric("meta/margin_gradient_norm", "", "norm of the meta loss's gradient in what gives the margin"),
)
_WEIGHTS = (
    Metric(
        "weights/effective_sample_size",
        "",
        "(sum w)^2 / sum w^2 over the number of clips: 1 is uniform",
    ),
    Metric("weights/min", "", "smallest sample weight of the batch; 1 is uniform"),
    Metric("weights/max", "", "largest sample weight of the batch; 1 is uniform"),
    Metric("weights/collapsed", "0 or 1", "1 when the collapse guard fired"),
    Metric("weights/alike", "0 or 1", "1 when learned weights were all alike and the losses were not"),
    Metric(
        "weights/<kind>/mean",
        "",
        "mean weight of clips whose caption is of this kind; 1 is uniform",
    ),
    Metric(
        "weights/curve_loss",
        "nats",
        "losses at which the weight curve is sampled",
        is_curve=True,
    ),
    Metric("weights/curve_weight", "", "weights at those losses", is_curve=True),
)
_INPUTS = (
    Metric("inputs/<input>/sensitivity", "", "change of the mean weight, 1 being itself, with this input of the net"),
    Metric("inputs/<input>/weight/<value>", "", "mean weight of clips of this value of a category; 1 is uniform"),
    Metric("inputs/<input>/curve_value", "", "values of the input at which the weight is sampled", is_curve=True),
    Metric("inputs/<input>/curve_weight", "", "weights at those values, the mean being 1", is_curve=True),
)
_CAPTIONS = (
    Metric("captions/generated", "share", "clips with a generated caption beside their own text, where both are read"),
    Metric("captions/generated_share", "share", "mean share of the generated caption in the losses of these clips"),
    Metric("captions/generated_share_spread", "share", "standard deviation of that share over the clips"),
    Metric("captions/<kind>/share", "share", "the mean of clips whose own caption is of this kind"),
)
_THROUGHPUT = (
    Metric("throughput/clips_per_s", "clips/s", "clips trained on per second, all workers"),
    Metric("throughput/step_s", "s", "time of one step"),
    Metric("throughput/data_wait_s", "s", "part of the step spent waiting for data"),
    Metric("throughput/peak_memory_gib", "GiB", "largest memory of one worker"),
)
_DATA = (
    Metric("data/num_valid", "clips", "clips of the batch that could be used, padding not among them"),
    Metric("data/num_invalid", "clips", "clips of the batch that could not be decoded; they carry no weight"),
    Metric("data/num_quarantined", "clips", "clips that could not be decoded since step 0"),
)
_RETRIEVAL = tuple(
    Metric(f"{scope}/{key}", "%" if "R@" in key else "", "retrieval " + where)
    for scope, where in (
        ("val", "on the val split"),
        ("eval/<benchmark>", "on a benchmark"),
    )
    for key in RETRIEVAL_KEYS
)
_VAL = (
    Metric("val/loss", "nats", "mean contrastive loss on the val split"),
    Metric("val/accuracy", "%", "questions of the val split that are answered rightly, of all"),
    Metric("val/accuracy/<type>", "%", "of the questions of a type"),
)
_NARRATOR = (
    Metric("train/caption_loss", "nats", "mean loss per caption token of the global batch, for a narrator"),
    Metric("val/caption_loss", "nats", "mean loss per caption token on the val split"),
    Metric("val/BLEU-1", "%", "corpus BLEU of the narrator's own greedy captions of clips of the val split"),
    Metric("val/BLEU-2", "%", "the same, to runs of two words"),
    Metric("val/BLEU-3", "%", "the same, to runs of three words"),
    Metric("val/BLEU-4", "%", "the same, to runs of four words"),
    Metric("val/ROUGE-L", "%", "mean F of the longest common subsequence, beta 1.2, of the same captions"),
    Metric("val/CIDEr-D", "", "CIDEr-D of the same captions, 0 to 10; depends on how many clips are scored"),
    Metric("val/num_captions_scored", "clips", "clips whose captions those scores are of"),
    Metric("val/<fact>_right", "%", "clips of the val split whose own greedy caption names this fact right"),
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in _TRAIN + _META + _WEIGHTS + _INPUTS + _CAPTIONS + _THROUGHPUT + _DATA + _RETRIEVAL + _VAL + _NARRATOR
}
_PATTERNS = [
    (
        re.compile(
            re.sub(
                r"<\w+>",
                r"[A-Za-z0-9_.-]+",
                re.escape(name).replace("\\<", "<").replace("\\>", ">"),
            )
        ),
        metric,
    )
    for name, metric in METRICS.items()
    if "<" in name
]


def find_metric(name: str) -> Metric:
    """Return the table's row of a concrete metric name; an unknown one is a UserError that lists the known ones."""
    if name in METRICS and "<" not in name:
        return METRICS[name]
    for pattern, metric in _PATTERNS:
        if pattern.fullmatch(name):
            return metric
    raise unknown_name("metric", name, METRICS)


def check_value(name: str, value: object) -> None:
    """Raise UserError when the name is unknown or the value has the wrong shape: a number, or numbers of a curve."""
    wants_curve = find_metric(name).is_curve
    if wants_curve != isinstance(value, list | tuple):
        raise UserError(
            f"metric {name} has the wrong shape",
            got=type(value).__name__,
            wanted="a list of numbers" if wants_curve else "one number",
        )
