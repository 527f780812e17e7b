"""How often a narrator names what a clip of the embedded corpus shows: a LLaVA or a gated GPT-2, on clips it never saw.

    python benchmarks/named_right.py --model runs/NAME/model --model embedded

Captions are greedy, one for each clip of the val and test splits of the corpora of some seeds. The last line is JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch

from mama_ray.captioning.narrator.folder import embedded_narrator, read_narrator_input
from mama_ray.captioning.narrator.kind import NarratorLoss, NarratorSettings
from mama_ray.captioning.narrator.kinds import KINDS, kind_of_folder
from mama_ray.captioning.narrator.settings import FrameInput, NarratorInput, NarratorModelConfig
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.data.synthetic.read_back import count_named_right
from mama_ray.data.synthetic.vocabulary import Thing
from mama_ray.data.video.settings import DecodeConfig

EMBEDDED = "embedded"
MAX_TOKENS = 32
_BATCH = 32


def measure(folder: Path, *, seeds: list[int], num_clips: int) -> dict:
    """Caption at most `num_clips` clips of each split; returns shares in percent by corpus and split, and the speed."""
    name = kind_of_folder(folder)
    kind, trained = KINDS[name], read_narrator_input(folder) or NarratorInput()
    settings = NarratorSettings(NarratorModelConfig(), trained.prompt, trained.grid, FrameInput())
    _, facts = kind.describe(folder, settings, list)
    narrator, show = kind.load(folder), kind.show(facts, settings, DecodeConfig())
    loss = narrator.build_loss(facts, settings.model, max_caption_tokens=MAX_TOKENS).eval()
    found: dict = {"kind": name, "num_parameters": sum(p.numel() for p in narrator.model.parameters())}
    for seed in seeds:
        corpus = CorpusConfig(seed=seed)
        for split in ("val", "test"):
            count = min(num_clips, corpus.num_clips[split])
            clips = [generate_clip(corpus, split, number) for number in range(count)]
            shown = np.stack([show(clip.video, None) for clip in clips])
            start_s, captions = time.perf_counter(), []
            for start in range(0, count, _BATCH):
                pictures = torch.from_numpy(shown[start : start + _BATCH])
                captions += cast(NarratorLoss, loss).narrate(pictures, max_tokens=MAX_TOKENS)
            right = count_named_right(captions, [Thing(**clip.clip.truth["facts"]["objects"][0]) for clip in clips])
            shares = {fact: round(100 * number / count, 1) for fact, number in right.items()}
            speed = round(count / (time.perf_counter() - start_s), 1)
            found[f"seed {seed}, {split}"] = {"num_clips": count, **shares, "clips_per_s": speed}
    return found


def main() -> None:
    """Print one table per narrator, and all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, help=f"folder of a narrator, or {EMBEDDED}")
    parser.add_argument("--seed", action="append", type=int, help="of a corpus; 0 and 1 without")
    parser.add_argument("--num_clips", type=int, default=400, help="most clips of each split")
    asked = parser.parse_args()
    torch.manual_seed(0)
    results = {}
    for model in asked.model:
        folder = embedded_narrator() if model == EMBEDDED else Path(model)
        results[model] = measure(folder, seeds=asked.seed or [0, 1], num_clips=asked.num_clips)
        print(f"{model}: {results[model]['kind']}, {results[model]['num_parameters']:,} parameters")
        for place, row in results[model].items():
            if isinstance(row, dict):
                print(f"  {place:16}", "  ".join(f"{name} {value}" for name, value in row.items()))
    print(json.dumps(results))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
