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
    """The stack and the memo of one pickle, and what opcodes do to them; `RULES` says which does what."""

    def __init__(self, persistent: Persistent) -> None:
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks that are still open
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Do what an opcode says."""
        rule = RULES.get(opcode)
        if rule is None:
            raise UnpicklingError(f"the pickle wants {opcode}, which needs more than the file")
        rule(self, argument)

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the value on top."""
        return self.stack.pop()

    def mark(self) -> None:
        """Begin a stack of its own."""
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def discard(self) -> None:
        """Drop the value on top, or the last mark where nothing lies above it."""
        if self.stack:
            self.pop()
        else:
            self.marked()

    def remember(self, key: int) -> None:
        """Note the value on top in the memo."""
        self.memo[key] = self.stack[-1]

    def bundle(self, count: int) -> None:
        """Make a tuple of the values on top."""
        self.stack[-count:] = [tuple(self.stack[-place] for place in range(count, 0, -1))]

    def reduce(self) -> None:
        """Put what would come of a call in the place of its arguments and the name below them."""
        arguments = self.pop()
        self.push(call(self.pop(), arguments))

    def reduce_with_keywords(self) -> None:
        """Likewise, with keywords on top: no name with a rule has any."""
        self.pop()
        self.reduce()

    def call_first(self, called: Any, *arguments: Any) -> None:
        """Put what would come of a call on the stack."""
        self.push(call(called, arguments))

    def name(self) -> None:
        """Make a name of the two texts on top."""
        name = self.pop()
        self.push(_global(self.pop(), name))

    def extend(self, items: list[Any]) -> None:
        """Append to the list on top; anything else there swallows the items."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        """Set items, a key and a value in turns, in the dict on top; anything else there swallows them."""
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update((key, value) for key, value in pairs if is_key(key))

    def set_item(self) -> None:
        """Set the value on top under the key below it."""
        value = self.pop()
        self.update([self.pop(), value])

    def dictionary(self) -> None:
        """Make a dict of the items above the last mark."""
        items = self.marked()
        self.push({})
        self.update(items)

    def frozen_set(self) -> None:
        """Make a set of what lies above the last mark."""
        self.marked()
        self.push(_SET)


_SET = Global("builtins", "set")  # sets hold no tensors; hashing what a stranger puts into them could take for ever


def _global(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str:
        raise UnpicklingError("a name in the pickle is not text")
    return Global(module, name)


Rule = Callable[[_Machine, Any], object]  # what opcodes do, given their argument

_TABLE: dict[str, Rule] = {
    "BININT1 BININT BININT2 INT LONG1 LONG4 LONG BINFLOAT FLOAT": _Machine.push,
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE BINSTRING SHORT_BINSTRING STRING": _Machine.push,
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8": _Machine.push,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "BINPUT LONG_BINPUT PUT": _Machine.remember,
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "BINGET LONG_BINGET GET": lambda machine, key: machine.push(machine.memo[key]),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "POP": lambda machine, _: machine.discard(),
    "MARK": lambda machine, _: machine.mark(),
    "POP_MARK": lambda machine, _: machine.marked(),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "TUPLE1": lambda machine, _: machine.bundle(1),
    "TUPLE2": lambda machine, _: machine.bundle(2),
    "TUPLE3": lambda machine, _: machine.bundle(3),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.marked()),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS ADDITEMS": lambda machine, _: machine.extend(machine.marked()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": lambda machine, _: machine.dictionary(),
    "SETITEM": lambda machine, _: machine.set_item(),
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    "EMPTY_SET": lambda machine, _: machine.push(_SET),
    "FROZENSET": lambda machine, _: machine.frozen_set(),
    "BINPERSID": lambda machine, _: machine.push(machine.persistent(machine.pop())),
    "PERSID": lambda machine, key: machine.push(machine.persistent(key)),
    "GLOBAL": lambda machine, names: machine.push(_global(*names.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.name(),
    "EXT1 EXT2 EXT4": lambda machine, code: machine.push(Global("copyreg", f"extension {code}")),
    "REDUCE NEWOBJ": lambda machine, _: machine.reduce(),
    "NEWOBJ_EX": lambda machine, _: machine.reduce_with_keywords(),
    "OBJ": lambda machine, _: machine.call_first(*machine.marked()),
    "INST": lambda machine, names: machine.call_first(_global(*names.split(" ", 1)), *machine.marked()),
    "BUILD": lambda machine, _: machine.pop(),  # what a class would do with a state is nobody's business
    "PROTO FRAME STOP": lambda machine, _: None,
}
RULES = {opcode: rule for opcodes, rule in _TABLE.items() for opcode in opcodes.split()}
