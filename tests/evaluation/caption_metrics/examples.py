"""Captions and references as words, and what the field's program gives for them.

The scores are those of pycocoevalcap 1.2 (`Bleu(4)`, `Rouge()`, `Cider()`) on these lists, joined by blanks; METEOR and
SPICE were not run. BLEU there has 1e-15 and 1e-9 in its fractions, so it agrees to 1e-8.
"""

HYPOTHESES = [
    "# c c picks up the knife from the table",
    "a man is walking down the street with a dog",
    "a small red circle moves to the left",
    "she she she washes the plate plate in the sink",
    "the person turns",
    "a large green star shrinks , then it stops",
]
REFERENCES = [
    ["# c c picks a knife from the table", "# c c takes the knife", "the wearer picks up a knife"],
    ["a man walks his dog down a street", "a man is walking with a dog along the road"],
    ["a little red disk goes left", "the small red circle moves to the left", "a red dot drifts to the left side"],
    ["she washes the plate in the sink"],
    ["the person turns around and looks at the other person", "someone turns the person"],
    ["a large green star shrinks , then it stops"],
]
OFFICIAL_BLEU = [0.9199999999816001, 0.8554637232442492, 0.7731734756043521, 0.6822491923922612]
OFFICIAL_ROUGE_L_OF_ITEMS = [0.85017422, 0.7, 0.875, 0.85059761, 0.62886598, 1.0]
OFFICIAL_CIDER_D_OF_ITEMS = [
    3.358753952364142, 3.137341293999663, 3.994595925750404, 5.0954738748290875, 2.4583356960991027, 10.0,
]  # fmt: skip
