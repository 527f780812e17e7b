"""Find the videos of a folder by words, best first, with their cosine similarity.

    python -m mama_ray.search FOLDER "a cat jumps" --encoder runs/mine

The first query of a folder encodes its videos; what was encoded is kept outside the folder, and the next is quick.
"""

import argparse
import logging
import os
import sys

from mama_ray.errors import UserError
from mama_ray.masking import mask_this_process
from mama_ray.version import installed_version

DEFAULT_ENCODER = "openai/clip-vit-base-patch32"
_NUM_TOLD = 3


def main(argv: list[str] | None = None) -> int:
    """Print the best videos; returns the exit status: 0, 1 for what a user can put right, 2 for bad usage."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    from mama_ray.encoder.encoder import load_encoder  # --help needs no torch
    from mama_ray.search.folder import require_videos, search_folder

    try:
        require_videos(options.folder)  # before a model is fetched
        encoder = load_encoder(options.encoder, device=options.device, batch_size=options.batch_size)
        found = search_folder(options.folder, encoder, cache=options.cache)
        hits = found.search(encoder, options.words, options.num_results)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped by Ctrl-C; what was encoded is kept\n")
        return 130
    _print("".join(f"{hit.similarity:.3f}  {_shown(hit.path)}\n" for hit in hits))
    if found.errors:
        told = "; ".join(f"{_shown(path)}: {reason}" for path, reason in list(found.errors.items())[:_NUM_TOLD])
        num_files = len(found.errors) + len(found.paths)
        sys.stderr.write(f"{len(found.errors)} of {num_files} videos cannot be searched: {told}\n")
    return 0 if found.paths else 1


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m mama_ray.search", description=__doc__, formatter_class=formatter)
    parser.add_argument("folder", help="folder of videos; those in folders below are searched, too")
    parser.add_argument("words", type=_words, help="what to look for")
    parser.add_argument(
        "--encoder",
        default=DEFAULT_ENCODER,
        help="a run, a checkpoint, a model folder, a URI of these, or a hub id in CLIP's layout (default: %(default)s)",
    )
    parser.add_argument("--num_results", type=_count, default=10, help="videos to print (default: %(default)s)")
    parser.add_argument("--cache", help="folder for the features (default: mama_ray/search in the user's cache folder)")
    parser.add_argument("--device", help="as torch names it (default: the GPU if there is one)")
    parser.add_argument("--batch_size", type=_count, default=32, help="videos encoded at a time (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"mama_ray {installed_version()}")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, wanted a number of at least 1")
    return int(text)


def _words(text: str) -> str:
    if not text.strip() or text != text.encode(errors="replace").decode():
        raise argparse.ArgumentTypeError(f"got {text!a}, wanted words in UTF-8")
    return text


def _print(text: str) -> None:
    """Write what was found; a reader that has seen enough, such as `head`, is no fault."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end


def _shown(path: str) -> str:
    """Return a path as a terminal may show it: a file's name may hold whatever steers one."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in path
    )


if __name__ == "__main__":
    mask_this_process()
    sys.exit(main())
