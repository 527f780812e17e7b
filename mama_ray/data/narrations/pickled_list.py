"""The items of a list in a pickle that holds lists, tuples, texts and numbers alone, without Python's unpickler.

A pickle is a program for a small stack machine. This one knows the opcodes that make plain data and no others: none
imports, calls or builds anything, so nothing that the file says can run. What it does not know is refused by its name.
"""

import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mama_ray.errors import UserError

_MARK = object()
_WANTED = "a list of tuples of texts, numbers and lists of them"
_MAX_INT_BYTES = 255
_MAX_WAITING = 100_000  # picklers write lists a thousand items at a time
# What makes anything else than plain data, by the byte that stands for it.
_OTHERS = {
    "c": "an object by name", "i": "an object by name", "\x93": "an object by name", "R": "a call", "o": "an object",
    "b": "an object's state", "\x81": "an object", "\x92": "an object", "P": "a persistent object",
    "Q": "a persistent object", "\x82": "an object by number", "\x83": "an object by number",
    "\x84": "an object by number", "}": "a dict", "d": "a dict", "\x8f": "a set", "\x91": "a frozenset", "B": "bytes",
    "C": "bytes", "\x8e": "bytes", "S": "a text of Python 2", "T": "a text of Python 2", "U": "a text of Python 2",
    "\x96": "a bytearray", "\x97": "a buffer", "\x8b": "a number of gigabytes",
}  # fmt: skip


class _Broken(ValueError):
    """Not a whole pickle."""


def read_pickled_list(path: str | Path) -> Iterator[Any]:
    """Yield the items of the list that a pickle of any protocol holds.

    Items come as they are read, so a file that turns out to be broken has yielded some. Memory is that of the texts,
    because any of them may be meant again later. Raises UserError, naming it, for whatever is not plain data, and for a
    file that is cut off or no pickle.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise UserError("a pickle that is no file", got=path, wanted="a regular file")
    try:
        with open(path, "rb") as file:
            if not file.seek(0, 2):
                raise UserError("the pickle is empty", got=path, wanted=_WANTED)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield from _Machine(data, str(path)).items()
    except FileNotFoundError as error:
        raise UserError("no such pickle", got=path) from error
    except MemoryError as error:
        raise UserError(
            "the pickle needs more memory than there is", got=path, wanted="what holds all its texts"
        ) from error


class _Machine:
    """The stack, what the file refers back to, and where in it we are."""

    def __init__(self, data: mmap.mmap, name: str) -> None:
        self._data, self._name, self._size = data, name, len(data)
        self._at = 0
        self._stack: list[Any] = []
        self._memo: list[Any] = []
        self._run: dict[int, Callable[[], None]] = {ord(byte): run for byte, run in self._opcodes().items()}

    def items(self) -> Iterator[Any]:
        """Yield what is appended to the list that lies lowest on the stack, which does not grow; then check the end."""
        data, run, stack = self._data, self._run, self._stack
        byte = 0
        try:
            while True:
                self._opcode_at, byte = self._at, data[self._at]
                self._at += 1
                if byte == ord("."):
                    break
                run[byte]()
                if len(stack) == 1 and type(stack[0]) is list and stack[0]:
                    found = stack[0][:]
                    stack[0].clear()
                    yield from found
        except KeyError:
            raise self._refused(byte) from None
        except (_Broken, IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
            reason = str(error) if isinstance(error, _Broken) else "cut off or damaged"
            got = f"{self._name}, byte {self._opcode_at} of {self._size}: {reason}"
            raise UserError("not a whole pickle", got=got, wanted=_WANTED, remedy="download it again") from error
        if len(stack) != 1 or type(stack[0]) is not list:
            got = f"{self._name}: {type(stack[0]).__name__ if stack else 'nothing'}"
            raise UserError("the pickle holds no list", got=got, wanted=_WANTED)

    def _refused(self, byte: int) -> UserError:
        what = _OTHERS.get(chr(byte))
        if what is None:
            got = f"{self._name}, byte {self._opcode_at}: {byte:#x} is no opcode"
            return UserError("not a pickle", got=got, wanted=_WANTED)
        return UserError(
            "the pickle holds more than plain data",
            got=f"{self._name}, byte {self._opcode_at}: {what}{self._name_of_object(byte)}",
            wanted=_WANTED,
            remedy="write it anew with Python's own lists, texts and numbers",
        )

    def _name_of_object(self, byte: int) -> str:
        """Say which object is named; it is not looked at."""
        if chr(byte) in "ci":
            names = self._data[self._at : self._at + 200].split(b"\n")[:2]
            return f", {b'.'.join(names).decode(errors='replace')}"
        names = [one for one in self._stack[-2:] if isinstance(one, str)]
        return f", {'.'.join(name[:100] for name in names)}" if chr(byte) == "\x93" else ""

    def _opcodes(self) -> dict[str, Callable[[], None]]:
        push, unpack = self._push, self._unpack
        return {
            "\x80": lambda: self._skip(1),
            "\x95": lambda: self._skip(8),
            "(": lambda: push(_MARK),
            "N": lambda: push(None),
            "\x88": lambda: push(True),
            "\x89": lambda: push(False),
            "K": lambda: push(unpack("<B", 1)),
            "M": lambda: push(unpack("<H", 2)),
            "J": lambda: push(unpack("<i", 4)),
            "I": lambda: push(self._int_of_line()),
            "L": lambda: push(self._int_of_line()),
            "\x8a": lambda: push(int.from_bytes(self._bytes(unpack("<B", 1)), "little", signed=True)),
            "G": lambda: push(unpack(">d", 8)),
            "F": lambda: push(float(self._line())),
            "\x8c": lambda: push(self._text(unpack("<B", 1))),
            "X": lambda: push(self._text(unpack("<I", 4))),
            "\x8d": lambda: push(self._text(unpack("<Q", 8))),
            "V": lambda: push(self._line().decode("raw-unicode-escape")),
            "]": lambda: push([]),
            ")": lambda: push(()),
            "l": lambda: push(self._since_mark()),
            "t": lambda: push(tuple(self._since_mark())),
            "\x85": lambda: self._tuple(1),
            "\x86": lambda: self._tuple(2),
            "\x87": lambda: self._tuple(3),
            "a": lambda: self._extend([self._pop()]),
            "e": lambda: self._extend(self._since_mark()),
            "\x94": lambda: self._memo.append(self._top()),
            "q": lambda: self._put(unpack("<B", 1)),
            "r": lambda: self._put(unpack("<I", 4)),
            "p": lambda: self._put(self._int_of_line()),
            "h": lambda: push(self._get(unpack("<B", 1))),
            "j": lambda: push(self._get(unpack("<I", 4))),
            "g": lambda: push(self._get(self._int_of_line())),
        }

    def _push(self, value: Any) -> None:
        if len(self._stack) == _MAX_WAITING:
            raise _Broken(f"more than {_MAX_WAITING} values wait to be put together")
        self._stack.append(value)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise _Broken("a mark where a value belongs")
        return value

    def _top(self) -> Any:
        value = self._stack[-1]
        if value is _MARK:
            raise _Broken("a mark where a value belongs")
        return value

    def _since_mark(self) -> list[Any]:
        stack, start = self._stack, len(self._stack) - 1
        while start >= 0 and stack[start] is not _MARK:
            start -= 1
        if start < 0:
            raise _Broken("no mark")
        values = stack[start + 1 :]
        del stack[start:]
        return values

    def _tuple(self, length: int) -> None:
        values = [self._pop() for _ in range(length)]
        self._stack.append(tuple(reversed(values)))

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise _Broken(f"something is appended to a {type(target).__name__}")
        target.extend(values)

    def _put(self, number: int) -> None:
        # A pickler numbers from 0 on: another number would only ask for memory.
        if number == len(self._memo):
            self._memo.append(self._top())
        elif 0 <= number < len(self._memo):
            self._memo[number] = self._top()
        else:
            raise _Broken(f"value {number} is kept before {len(self._memo)}")

    def _get(self, number: int) -> Any:
        if not 0 <= number < len(self._memo):
            raise _Broken(f"value {number} is not there")
        return self._memo[number]

    def _skip(self, length: int) -> None:
        self._bytes(length)

    def _bytes(self, length: int) -> bytes:
        if length > self._size - self._at:
            raise _Broken(f"{length} bytes are named, {self._size - self._at} are there")
        self._at += length
        return self._data[self._at - length : self._at]

    def _unpack(self, form: str, length: int) -> Any:
        return struct.unpack(form, self._bytes(length))[0]

    def _text(self, length: int) -> str:
        return self._bytes(length).decode("utf-8", "surrogatepass")

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise _Broken("a line without an end")
        return self._bytes(end + 1 - self._at)[:-1]

    def _int_of_line(self) -> int:
        line = self._line()
        if len(line) > _MAX_INT_BYTES:
            raise _Broken(f"a number of {len(line)} digits")
        return {b"00": False, b"01": True}.get(line, int(line.rstrip(b"L")))
