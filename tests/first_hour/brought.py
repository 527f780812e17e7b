"""What somebody brings in the first hour: a folder of videos, a table with ten ordinary mistakes, two small models."""

import csv
import shutil
from pathlib import Path

import torch

from mama_ray.captioning.narrator.folder import embedded_narrator
from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.generate import generate_clip
from mama_ray.data.tokenizer import Tokenizer

NUM_CLIPS = {"train": 64, "validation": 8, "Test ": 12}  # the names of splits as people write them
_CORPUS = CorpusConfig(num_train=64, num_meta=0, num_val=8, num_test=16, image_size=96, num_frames=12, fps=6)
_OUR_NAMES = {"train": "train", "validation": "val", "Test ": "test"}
_CONTEXT_LENGTH, _WIDTH, _SIDE = 32, 48, 32


def write_brought(folder: Path) -> None:
    """Write `videos/`, `clips.csv`, `narrator/` in LLaVA's layout and `encoder/` in that of CLIP."""
    (folder / "videos").mkdir(parents=True)
    rows = _write_videos(folder / "videos")
    texts = [row["caption"] for row in rows]
    _write_table(folder / "clips.csv", _with_mistakes(rows, folder / "videos"))
    shutil.copytree(embedded_narrator(), folder / "narrator")
    write_encoder(folder / "encoder", texts)


def write_encoder(folder: Path, texts: list[str]) -> None:
    """Write a CLIP of random weights with its tokenizer, as transformers saves them."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = Tokenizer.train(texts, 600, _CONTEXT_LENGTH)
    tower = {"hidden_size": _WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 4 * _WIDTH}
    special = {"bos_token_id": tokenizer.start_id, "eos_token_id": tokenizer.eot_id, "pad_token_id": tokenizer.eot_id}
    text = tower | special | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": _CONTEXT_LENGTH}
    vision = tower | {"image_size": _SIDE, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)).save_pretrained(folder)
    tokenizer.save(folder)


def _write_videos(folder: Path) -> list[dict[str, str]]:
    rows = []
    for split, num_clips in NUM_CLIPS.items():
        for number in range(num_clips):
            made = generate_clip(_CORPUS, _OUR_NAMES[split], number)
            name = f"{split.strip().lower()}/IMG {number:04d}.mp4"
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(made.video)
            rows.append({"video": name, "caption": made.clip.captions[0].text, "split": split})
    return rows


def _with_mistakes(rows: list[dict[str, str]], videos: Path) -> list[dict[str, str]]:
    """Ten ordinary mistakes, the first seven in rows of their own."""
    whole = (videos / rows[0]["video"]).read_bytes()
    (videos / "train/cut off.mp4").write_bytes(whole[: len(whole) // 3])
    (videos / "train/empty.mp4").write_bytes(b"")
    (videos / "train/notes.mp4").write_text("These are not the pixels you are looking for.\n")
    spoiled = [
        {"video": "train/cut off.mp4", "caption": "a download that broke off"},
        {"video": "train/empty.mp4", "caption": "a file without a byte"},
        {"video": "train/notes.mp4", "caption": "a text with the name of a video"},
        {"video": "train/never recorded.mp4", "caption": "a video that is not there"},
        {"video": "train/img 0003.MP4", "caption": "a name in another case"},
        {"video": rows[5]["video"], "caption": "a clip that ends before it begins", "start_s": "2", "end_s": "1"},
        {"video": "", "caption": "a row without a video"},
    ]
    rows[6]["caption"] = "N/A"  # the eighth: no caption, in words
    rows[7]["caption"] = "   "  # the ninth: no caption, in blanks
    second = {**rows[8], "caption": "the same clip in other words"}  # the tenth: a row per caption
    return [*rows, second, *({"split": "train"} | row for row in spoiled)]


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """As a spreadsheet writes it, with the index column that pandas adds."""
    columns = ["video", "caption", "split", "start_s", "end_s"]
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["", *columns])
        writer.writerows([number, *(row.get(column, "") for column in columns)] for number, row in enumerate(rows))
