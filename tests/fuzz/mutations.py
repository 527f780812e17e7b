"""Seeded damage to files: to their bytes, to the headers of a tar, to what a JSON text or a YAML page says."""

import json
import random
from typing import Any

ODD_VALUES: list[Any] = [
    None, True, -1, 0, 10**6, 10**18, 10**19, 10**400, 1e308, float("inf"), float("nan"), "", "x" * 100_000, "../x",
    "/etc/passwd", "a\0b", "\x1b[2J", "\ud800", [], {}, [None], {"a": {}}, [[[[[]]]]], ["x"] * 1000,
]  # fmt: skip
ODD_LINES = [
    "a: &a [x, x]\nb: &b [*a, *a]\n", "x: !!python/object/apply:os.system [id]\n", "? [1, 2]\n: 3\n", "n: .inf\n",
    "n: 99999999999999999999\n", "\t\n", "a: " + "[" * 3000 + "\n", "k: '\x07'\n", "- 1\n", "%TAG ! x\n---\n",
]  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, splice, repeat or zero a part."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3, 12))):
        at = rng.randrange(len(changed) or 1)
        size = rng.choice((1, 2, 8, 64, 512, 4096))
        kind = rng.randrange(6)
        if kind == 0:
            changed[at : at + 1] = bytes([changed[at] ^ (1 << rng.randrange(8))]) if changed else b""
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            start = rng.randrange(len(changed) or 1)
            changed[at:at] = changed[start : start + size]
        elif kind == 3:
            changed[at : at + size] = bytes(size)
        elif kind == 4:
            changed += rng.randbytes(size)
        else:
            changed[at : at + min(size, 8)] = rng.choice((b"\xff" * 8, b"\x7f" * 8, rng.randbytes(8)))
    return bytes(changed)


def mutate_tar(data: bytes, rng: random.Random) -> bytes:
    """Change fields of a header, with its checksum put right, or else any bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    changed = bytearray(data)
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    for _ in range(rng.choice((1, 2))):
        at = rng.choice(headers)
        block = bytearray(changed[at : at + 512])
        kind = rng.randrange(4)
        if kind == 0:
            size = rng.choice((0, 1, 511, 1 << 20, 1 << 33, 1 << 62, (1 << 87) - 1, len(data), rng.randrange(1 << 40)))
            block[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 1 << 33 else f"{size:011o}\0".encode()
        elif kind == 1:
            block[156:157] = rng.choice((b"x", b"g", b"L", b"K", b"S", b"0", b"5", b"1", b"D", b"M", b"\xff"))
        elif kind == 2:
            name = rng.choice((b"a\0b.mp4", b"../../x.mp4", b"\xff.mp4", b"\x1b[2J.txt", b"k.mp4"))
            block[:100] = name.ljust(100, b"\0")
        else:
            place = rng.randrange(512)
            block[place : place + 8] = rng.randbytes(8)
        block[148:156] = f"{sum(block[:148]) + 256 + sum(block[156:512]):06o}\0 ".encode()
        changed[at : at + 512] = block[:512]
        if rng.random() < 0.2:
            changed[at:at] = bytes(block[:512]) * rng.choice((1, 40))
    return bytes(changed)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Put an odd value somewhere, leave a field out, nest deeply, or change any bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(data, rng)
    if rng.random() < 0.05:
        return b"[" * 100_000
    content = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        holders = [one for one in _holders(content) if one]
        if not holders or rng.random() < 0.05:
            content = rng.choice(ODD_VALUES)
            continue
        holder = rng.choice(holders)
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        if isinstance(holder, dict) and rng.random() < 0.25:
            value = holder.pop(key)
            if rng.random() < 0.5:
                holder[rng.choice(("../x", "/x", "", "a\0", "x" * 5000, "\x1b"))] = value
        else:
            holder[key] = rng.choice(ODD_VALUES)
    return json.dumps(content).encode()


def mutate_lines(data: bytes, rng: random.Random) -> bytes:
    """Change one line of a file of JSON lines."""
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = mutate_json(lines[at], rng)
    return b"\n".join(lines) + b"\n"


def mutate_yaml(data: bytes, rng: random.Random) -> bytes:
    """Put an odd line somewhere, or change any bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    lines = data.decode().splitlines(keepends=True)
    at = rng.randrange(len(lines) + 1)
    lines[at : at + rng.randrange(2)] = [rng.choice(ODD_LINES)]
    return "".join(lines).encode()


def _holders(content: Any) -> list[Any]:
    if not isinstance(content, (dict, list)):
        return []
    inner = content.values() if isinstance(content, dict) else content
    return [content, *(holder for one in inner for holder in _holders(one))]
