"""Captioning beside its peer: our pipeline and Ray Data's own LLM processor (ray.data.llm), the same requests in turns.

    .venv/bin/python benchmarks/peer_captioning.py [--rounds 2] [--num-clips 600] [--logprobs] [--output FILE]
    .venv/bin/python benchmarks/peer_captioning.py --rounds 0 --kills

Both caption the same clips of the embedded corpus with the same model, pictures, prompt, seeds and options of vLLM: 64
captions at a time, one thread, 32 clips to a batch, one decode task at a time, which makes the pictures by the same
function. Each turn is a job of its own with a Ray of its own. Ours commits parts; the peer writes Parquet at the end of
its pipeline. It has its own defaults where ours have no counterpart: eight batches in an engine, which is a process of
its own beside the actor, so that it may use a second core.

Prints JSON: captions per second between a tenth of the answers and the last, by the wall's clock and per CPU second of
all processes (which other work on the machine changes less), ours over the peer's in each round, and how many captions
are the same. With --kills: what each loses when the process that holds the engine gets SIGKILL at half of the answers.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

from captioning_memory import write_repeated
from peer_captioning_cases.jobs import OURS, RAY_LLM, Setting
from peer_captioning_cases.watch import ACTOR, ENGINE_CORE, Seen, run_job

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip

KILLS = ((OURS, ACTOR), (RAY_LLM, ACTOR), (RAY_LLM, ENGINE_CORE))


def measure_speed(settings: dict[str, Setting], rounds: int, limit_s: float) -> dict:
    """Run both sides in turns that change order from round to round."""
    seen: dict[str, list[Seen]] = {side: [] for side in settings}
    for number in range(rounds):
        for side in sorted(settings, reverse=number % 2 == 1):
            one = run_job(settings[side], limit_s)
            if one.status != 0:
                raise SystemExit(f"{side} ended with {one.status}: {one.told}")
            seen[side].append(one)
            print(f"round {number + 1} of {rounds}, {side}: {one.steady()}", file=sys.stderr)
    steady = {side: [one.steady() for one in turns] for side, turns in seen.items()}
    ours, peer = steady[OURS], steady[RAY_LLM]
    by_clock = [one["captions_per_s"] / other["captions_per_s"] for one, other in zip(ours, peer, strict=True)]
    by_cpu = [other["cpu_s_per_caption"] / one["cpu_s_per_caption"] for one, other in zip(ours, peer, strict=True)]
    whole = {side: [one.cpu[-1][1] for one in turns] for side, turns in seen.items()}
    texts = {side: dict(turns[0].captions) for side, turns in seen.items()}
    same = sum(texts[OURS].get(clip) == text for clip, text in texts[RAY_LLM].items())
    return {
        "turns": steady,
        "ours over the peer, by the clock": spread(by_clock),
        "ours over the peer, per CPU second": spread(by_cpu),
        "CPU s of the whole job": {side: spread(values) for side, values in whole.items()},
        "captions": {side: len(found) for side, found in texts.items()},
        "the same captions": same,
    }


def measure_kill(setting: Setting, which: str, num_clips: int, limit_s: float) -> dict:
    """Kill an engine at half of the answers, and count."""
    seen = run_job(setting, limit_s, kill=which, kill_at=num_clips // 2)
    rows = Counter(clip for clip, _ in seen.captions)
    ended = {0: "went on to its end", None: f"hung: no answer for {limit_s:.0f} s"}
    found = {
        "side": setting.side,
        "killed": which,
        "job": ended.get(seen.status, f"ended with status {seen.status}"),
        "clips": num_clips,
        "clips without a caption": num_clips - len(rows),
        "clips with two rows": sum(count > 1 for count in rows.values()),
        "answers of engines": len(seen.answers_s),
        "captions made twice": len(seen.answers_s) - len(rows) if rows else None,
        "processes of the engine left behind": seen.left_over,
        "seconds": round(seen.cpu[-1][0] - seen.cpu[0][0], 1),
    }
    found |= {} if seen.status == 0 else {"told": seen.told[-600:]}
    print(found, file=sys.stderr)
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the range."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="of both sides; 0 for kills alone")
    parser.add_argument("--num-clips", type=int, default=600)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--concurrent-batches", type=int, help="of both sides, instead of the default of each")
    parser.add_argument("--logprobs", action="store_true", help="the peer asks for them, too, as ours does")
    parser.add_argument("--kills", nargs="*", type=int, choices=range(len(KILLS)), help="which, all without a number")
    parser.add_argument("--limit-s", type=float, default=180.0, help="without an answer, after which a job is hung")
    parser.add_argument("--model")
    parser.add_argument("--output")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # with the job that is under way
    with tempfile.TemporaryDirectory(prefix="peer-captioning-corpus-") as scratch:
        shards = make_corpus(args.num_clips, Path(scratch))
        common = (shards, args.model, args.max_tokens, args.concurrent_batches, args.logprobs)
        settings = {side: Setting(side, *common) for side in (OURS, RAY_LLM)}
        result: dict = {"command": " ".join(["python", "benchmarks/peer_captioning.py", *sys.argv[1:]])}
        if args.rounds:
            result |= measure_speed(settings, args.rounds, args.limit_s)
        if args.kills is not None:
            chosen = [KILLS[number] for number in args.kills or range(len(KILLS))]
            kills = [measure_kill(settings[side], which, args.num_clips, args.limit_s) for side, which in chosen]
            result["one engine killed at half of the answers"] = kills
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def make_corpus(num_clips: int, folder: Path) -> str:
    """Return the folder of the shards; made without Ray, so that the first job starts as the others do."""
    corpus = CorpusConfig(num_train=num_clips)
    clips = [generate_clip(corpus, "train", number) for number in range(num_clips)]
    return str(write_repeated(folder / "shards", corpus, clips, num_clips))


if __name__ == "__main__":
    main()
