"""All caption metrics of one set of captions, with what a number means nothing without: which subset it was made on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from mama_ray.errors import UserError
from mama_ray.evaluation.caption_metrics.bleu import corpus_bleu
from mama_ray.evaluation.caption_metrics.cider import cider_d
from mama_ray.evaluation.caption_metrics.rouge import mean_rouge_l
from mama_ray.evaluation.caption_metrics.words import TOKENISATION, caption_words

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D")
NOT_RUN = {
    "METEOR": "needs the Java program METEOR 1.5 with its paraphrase tables; no other implementation gives its numbers"
}
_PERCENT = 100.0


@dataclass(frozen=True)
class Subset:
    """Which clips a score was made on.

    Attributes:
        split: of the index.
        num_clips: clips scored.
        num_of: clips that were there to choose from, each with a reference.
        every: every N-th of them was taken, from the first on; None: spread evenly.
        ids_sha256: of the sorted clip ids, joined by newlines.
        num_unreadable: clips that were chosen and could not be read; they are not among those scored.
    """

    split: str
    num_clips: int
    num_of: int
    every: int | None
    ids_sha256: str
    num_unreadable: int = 0

    @classmethod
    def of(
        cls, clip_ids: Sequence[str], *, split: str, num_of: int, every: int | None, num_unreadable: int = 0
    ) -> "Subset":
        """Name the clips of these ids."""
        digest = hashlib.sha256("\n".join(sorted(clip_ids)).encode()).hexdigest()
        return cls(split, len(clip_ids), num_of, every, digest, num_unreadable)

    def __str__(self) -> str:
        """Return the words that stand beside a number: `200 of the 1,600 clips of val, evenly spread`."""
        if self.num_clips == self.num_of:
            return f"all {self.num_of:,} clips of {self.split}"
        chosen = f"every {self.every:,}th" if self.every else "evenly spread"
        unread = f", without {self.num_unreadable:,} that could not be read" if self.num_unreadable else ""
        return f"{self.num_clips:,} of the {self.num_of:,} clips of {self.split}, {chosen}{unread}"


@dataclass(frozen=True)
class CaptionScores:
    """Scores in the units of the field's tables: BLEU and ROUGE-L in percent, CIDEr-D in [0, 10].

    Attributes:
        scores: by the names of NAMES; empty for no clip at all.
        num_references: references of all clips together.
        not_run: metrics of the field that are not among the scores, with the reason.
    """

    subset: Subset
    scores: dict[str, float]
    num_references: int
    tokenisation: str = TOKENISATION
    not_run: dict[str, str] = field(default_factory=lambda: dict(NOT_RUN))


def score_captions(hypotheses: Sequence[str], references: Sequence[Sequence[str]], subset: Subset) -> CaptionScores:
    """Score one caption per clip against the clip's references.

    Raises UserError for a clip without a reference, and where hypotheses, references and subset do not fit together.
    """
    if not len(hypotheses) == len(references) == subset.num_clips:
        raise UserError(
            "captions and references of different clips",
            got=f"{len(hypotheses)} captions, references of {len(references)} clips, {subset.num_clips} in the subset",
            wanted="one caption and one list of references for each clip",
        )
    if bare := [place for place, own in enumerate(references) if not own]:
        raise UserError("a clip without a reference", got=f"clip number {bare[0]}", wanted="at least one caption each")
    if not hypotheses:
        return CaptionScores(subset, {}, 0)
    written = [caption_words(text) for text in hypotheses]
    wanted = [[caption_words(text) for text in own] for own in references]
    bleu = [_PERCENT * score for score in corpus_bleu(written, wanted)]
    values = [*bleu, _PERCENT * mean_rouge_l(written, wanted), cider_d(written, wanted)[0]]
    return CaptionScores(subset, dict(zip(NAMES, values, strict=True)), sum(map(len, references)))
