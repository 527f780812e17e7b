"""Narration: what the gated GPT-2's decoder reaches over LaViLa's way and over transformers' `generate`.

.venv/bin/python benchmarks/narration.py [--width 256] [--layers 6] [--clips 24] [--num_slow 2]

All ways write ten captions of each clip with the same narrator (GPT-2's vocabulary, 256 visual tokens, new weights of a
spread that makes some tokens likely), nucleus 0.95 and temperature 0.7, on all cores, one after another:
  decoder   mama_ray's: keys and values kept, those of a clip once; captions leave when they end, others follow
  generate  transformers' generate of the same modules: its cache, its sampling, 6 clips together until all have ended
  release   LaViLa's: no cache, a clip's visual tokens repeated for its samples, 76 steps whatever the captions' length
`whole` captions have 76 tokens behind the first, in all ways; `ending` ones end where the model ends them. Before the
clock starts, all three must have written the same tokens greedily. Then clips of the embedded corpus are narrated one
after another, and the shares of decoding video, of the video tower and of the decoder are told.
"""

import json
import os
import time
from collections.abc import Callable

import torch
import tyro
from narration_cases.other_ways import GenerateNarrator, as_the_release, by_generate

from mama_ray.captioning.gpt2.choice import Drawing
from mama_ray.captioning.gpt2.decoding import Decoder
from mama_ray.captioning.pictures.settings import FRAMES
from mama_ray.captioning.pictures.show import ShowConfig, show_clip
from mama_ray.config import with_overrides
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.models.narrator.model import GatedNarrator
from mama_ray.models.narrator.presets import PRESETS

NUM_SAMPLES, NUM_ROWS, CLIPS_PER_BATCH = 10, 64, 6
DRAWING = Drawing(0.7, top_p=0.95)


def main(
    width: int = 256,
    layers: int = 6,
    vocabulary: int = 50257,
    clips: int = 24,
    num_slow: int = 2,
    tokens: int = 76,
    corpus_clips: int = 32,
) -> None:
    """Measure all ways and print one JSON object; num_slow clips are enough for the release's way."""
    torch.set_num_threads(os.cpu_count() or 1)
    model = build_narrator(width, layers, vocabulary, tokens)
    other = GenerateNarrator(model).eval()
    visual = some_visual(model, max(clips, num_slow))
    require_same_tokens(model, other, visual[:2], min(tokens, 12))
    speeds = {kind: measure(model, other, visual, kind, clips, tokens) for kind in ("whole", "ending")}
    began = time.perf_counter()  # without a first run: it takes many times as long as that of any kernel
    as_the_release(model, visual[:num_slow], NUM_SAMPLES, DRAWING, tokens)
    release = num_slow * NUM_SAMPLES / (time.perf_counter() - began)
    speeds = {kind: found | {"release": release} for kind, found in speeds.items()}  # its captions never end early
    result = {
        "narrator": {
            "width": width,
            "layers": layers,
            "vocabulary": vocabulary,
            "visual tokens": 256,
            "tokens": tokens,
        },
        "captions_per_s": {kind: {way: round(one, 3) for way, one in found.items()} for kind, found in speeds.items()},
        "decoder over": {
            f"{way}, {kind}": round(found["decoder"] / found[way], 2)
            for kind, found in speeds.items()
            for way in ("release", "generate")
        },
        "shares of narrating": shares(model, corpus_clips, tokens),
    }
    print(json.dumps(result, indent=1))


def build_narrator(width: int, layers: int, vocabulary: int, tokens: int) -> GatedNarrator:
    """Make a narrator whose gates are open and whose captions end after some ten tokens on average."""
    torch.manual_seed(0)
    heads, spread = max(1, width // 64), 4.0 * width**-0.5
    sizes = {"language.width": width, "language.num_layers": layers, "language.num_heads": heads, "num_queries": 256}
    sizes |= {"language.vocab_size": vocabulary, "language.num_positions": tokens + 1, "language.init_std": spread}
    sizes |= {"context_length": tokens + 1, "pooler_heads": heads}
    model = GatedNarrator(with_overrides(PRESETS["gated_tiny"], sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "alpha" in name:
                parameter.fill_(0.5)
        norm, embeddings = (model.text_decoder.transformer[name] for name in ("ln_f", "wte"))
        # The end's logit is the same always: a tenth of what the others have together on average.
        norm.weight[0], norm.bias[0], embeddings.weight[:, 0] = 0.0, 1.0, 0.0
        embeddings.weight[model.config.eos_id] = 0.0
        token_ids = torch.randint(1, vocabulary, (8, min(tokens, 12)))
        logits = model(some_visual(model, 8), token_ids)[..., 1:] / DRAWING.temperature
        embeddings.weight[model.config.eos_id, 0] = DRAWING.temperature * (logits.logsumexp(-1).mean() - 2.2)
    return model


@torch.no_grad()
def some_visual(model: GatedNarrator, num_clips: int) -> torch.Tensor:
    """Return visual tokens of noise."""
    side = model.config.image_size
    shape = (num_clips, model.config.num_frames, side, side, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return model.encode_visual(frames)


def require_same_tokens(model: GatedNarrator, other: GenerateNarrator, visual: torch.Tensor, tokens: int) -> None:
    """Raise AssertionError where the ways do not write the same: they would not be comparable."""
    ours = decode(model, visual, 1, Drawing(), tokens, to_the_end=False)
    theirs = by_generate(other, visual, 1, Drawing(), tokens, to_the_end=False).tolist()
    release = as_the_release(model, visual, 1, Drawing(), tokens).tolist()
    for place, written in enumerate(ours):
        assert list(written) == theirs[place][: len(written)] == release[place][: len(written)]


def decode(
    model: GatedNarrator, visual: torch.Tensor, samples: int, drawing: Drawing, tokens: int, *, to_the_end: bool
) -> list[tuple[int, ...]]:
    """Write captions with our decoder, in order of clip and sample."""
    shortest = tokens if to_the_end else 0
    decoder = Decoder(model, drawing, max_tokens=tokens, min_tokens=shortest, num_rows=NUM_ROWS)
    for clip, one in enumerate(visual):
        decoder.add(one, range(clip * samples, clip * samples + samples))
    written = []
    while decoder.has_work:
        written += decoder.step()
    return [one.token_ids for one in sorted(written, key=lambda one: (one.clip, one.sample))]


def measure(
    model: GatedNarrator, other: GenerateNarrator, visual: torch.Tensor, kind: str, clips: int, tokens: int
) -> dict[str, float]:
    """Return captions per second of the two ways that can stop early."""
    to_the_end = kind == "whole"

    def generate(some: torch.Tensor) -> None:
        for part in some.split(CLIPS_PER_BATCH):
            by_generate(other, part, NUM_SAMPLES, DRAWING, tokens, to_the_end=to_the_end)

    ways = {"decoder": lambda some: decode(model, some, NUM_SAMPLES, DRAWING, tokens, to_the_end=to_the_end)}
    ways["generate"] = generate
    return {name: clips * NUM_SAMPLES / seconds(way, visual[:clips]) for name, way in ways.items()}


def seconds(way: Callable[[torch.Tensor], object], visual: torch.Tensor) -> float:
    """Return the wall time of a way, once it has run for one clip."""
    way(visual[:1])
    began = time.perf_counter()
    way(visual)
    return time.perf_counter() - began


@torch.inference_mode()
def shares(model: GatedNarrator, num_clips: int, tokens: int) -> dict[str, float]:
    """Narrate clips of the embedded corpus, as the engine does, and return where the time went."""
    corpus, config = CorpusConfig(), model.config
    videos = [generate_clip(corpus, "train", number).video for number in range(num_clips)]
    spent = dict.fromkeys(("decoding video", "video tower and pooler", "decoder"), 0.0)
    how = ShowConfig(FRAMES, config.image_size, config.num_frames)
    visual = []
    for video in videos:
        began = time.perf_counter()
        frames = torch.from_numpy(show_clip(video, how, is_guarded=False).content)[None]
        decoded = time.perf_counter()
        visual.append(model.encode_visual(frames)[0])
        spent["decoding video"] += decoded - began
        spent["video tower and pooler"] += time.perf_counter() - decoded
    spent["decoder"] = seconds(
        lambda some: decode(model, some, NUM_SAMPLES, DRAWING, tokens, to_the_end=False), torch.stack(visual)
    )
    whole = sum(spent.values())
    return {name: round(one / whole, 4) for name, one in spent.items()} | {"clips_per_s": round(num_clips / whole, 2)}


if __name__ == "__main__":
    tyro.cli(main)
