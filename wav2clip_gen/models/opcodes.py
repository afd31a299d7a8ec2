"""Read a pickle as data: a machine that knows the opcodes, imports nothing and calls nothing.

Python's own unpickler imports what a pickle names and calls it with what the pickle holds, so whoever wrote the file
runs code here. This machine only stacks values. A name stays a `Global`, which also stands for whatever would come of
calling it, and swallows state and items; a few names (an ordered dict, a tensor) have rules, and those are ours.
Opcodes are decoded by the standard library's `pickletools`, which executes none of them.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable
from pickle import UnpicklingError
from typing import IO, Any, cast

from wav2clip_gen.models.stored import Global, call, is_key

LARGEST_PICKLE = 1 << 23  # bytes; published checkpoints have less than one MiB beside their storages

Persistent = Callable[[Any], Any]  # from a persistent id, torch's way to point at storages, to what stands for it


def unpickle(data: bytes | mmap.mmap, persistent: Persistent, start: int = 0, stop: int | None = None) -> Any:
    """The value of the pickle at `start`, as dicts, lists, tuples, plain values, `Global`s and `StoredTensor`s.

    Args:
        data: What holds the pickle.
        persistent: Gives the value of a persistent id, torch's way to point at storages.
        start: The pickle's first byte.
        stop: The byte before which it must end.

    Raises:
        UnpicklingError: It is damaged, too large, or does what no checkpoint does. Wrong bytes also provoke
            ValueError, TypeError, KeyError, IndexError or OverflowError.
    """
    return unpickle_next(data, persistent, start, stop)[0]


def unpickle_next(
    data: bytes | mmap.mmap, persistent: Persistent, start: int = 0, stop: int | None = None
) -> tuple[Any, int]:
    """Like `unpickle`, with the first byte behind the pickle."""
    reader = _Reader(data, start, len(data) if stop is None else stop)
    machine = _Machine(persistent)
    for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", reader)):
        machine.step(opcode.name, argument)
    return machine.stack.pop(), reader.tell()


class _Reader:
    """As much of a file as `pickletools` needs, moving forward, never further than a pickle may reach."""

    def __init__(self, data: bytes | mmap.mmap, start: int, stop: int) -> None:
        self.data, self.position = data, start
        self.stop = min(stop, start + LARGEST_PICKLE)
        self.fenced = self.stop < stop

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes:
        return self._take(self.position + count)

    def readline(self) -> bytes:
        end = self.data.find(b"\n", self.position, self.stop)
        return self._take(self.stop + 1 if end < 0 else end + 1)

    def _take(self, end: int) -> bytes:
        if end > self.stop:
            raise UnpicklingError(
                f"a pickle of more than {LARGEST_PICKLE >> 20} MiB" if self.fenced else "the pickle has no end"
            )
        taken = self.data[self.position : end]
        self.position = end
        return taken


class _Machine:
    """The stack and the memo of one pickle, and what each opcode does to them."""

    def __init__(self, persistent: Persistent) -> None:
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks that are still open
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:  # noqa: C901, PLR0912, PLR0915 (a table, one opcode a line)
        """Do what an opcode says; the most frequent come first."""
        stack = self.stack
        match opcode:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
            case "BININT1" | "BININT" | "BININT2" | "INT" | "LONG1" | "LONG4" | "LONG" | "BINFLOAT" | "FLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "UNICODE":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING" | "STRING":
                stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                stack.append(argument)
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE":
                self.push(tuple(self.marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode[-1])
                stack[-count:] = [tuple(stack[-place] for place in range(count, 0, -1))]
            case "BINPERSID":
                stack.append(self.persistent(stack.pop()))
            case "PERSID":
                stack.append(self.persistent(argument))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(call(stack.pop(), arguments))
            case "NEWOBJ_EX":
                stack.pop()  # keywords: no name with a rule has any
                arguments = stack.pop()
                stack.append(call(stack.pop(), arguments))
            case "OBJ":
                called, *arguments = self.marked()
                self.push(call(called, tuple(arguments)))
            case "INST":
                self.push(call(_global(*argument.split(" ", 1)), tuple(self.marked())))
            case "BUILD":
                stack.pop()  # what a class would do with this state is nobody's business here
            case "GLOBAL":
                stack.append(_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(_global(stack.pop(), name))
            case "EXT1" | "EXT2" | "EXT4":
                stack.append(Global("copyreg", f"extension {argument}"))
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_SET":
                stack.append(_SET)
            case "FROZENSET":
                self.marked()
                self.push(_SET)
            case "LIST":
                self.push(self.marked())
            case "DICT":
                items = self.marked()
                self.push({})
                self.update(items)
            case "APPEND":
                self.extend([stack.pop()])
            case "APPENDS" | "ADDITEMS":
                self.extend(self.marked())
            case "SETITEM":
                value = stack.pop()
                self.update([stack.pop(), value])
            case "SETITEMS":
                self.update(self.marked())
            case "DUP":
                stack.append(stack[-1])
            case "POP":
                if stack:
                    stack.pop()
                else:
                    self.marked()
            case "POP_MARK":
                self.marked()
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise UnpicklingError(f"the pickle wants {opcode}, which needs more than the file")

    def push(self, value: Any) -> None:
        """Put a value on the stack that is current now, after marks were taken."""
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def extend(self, items: list[Any]) -> None:
        """Append to the list on top; anything else there swallows the items."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        """Set items, a key and a value in turns, in the dict on top; anything else there swallows them."""
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update((key, value) for key, value in pairs if is_key(key))


_SET = Global("builtins", "set")  # sets hold no tensors; hashing what a stranger puts into them could take for ever


def _global(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str:
        raise UnpicklingError("a name in the pickle is not text")
    return Global(module, name)
