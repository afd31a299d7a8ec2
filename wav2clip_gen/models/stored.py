"""What a checkpoint's pickle stands for, as records: names, stretches of storages, tensors that lie in them.

The few names that mean something in a state dict have a rule here that makes a record of their arguments, after
checking them; torch's own functions are not called. Nothing is read from a storage yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch

LARGEST_INTEGER = (1 << 63) - 1  # of a shape, a stride or an offset
MOST_DIMENSIONS = 64  # of a tensor, as torch has it
LONGEST_KEY = 100  # characters; torch's keys are numbers

Key = str | int  # of a storage
STORAGE_DTYPES = {
    "BFloat16Storage": torch.bfloat16, "BoolStorage": torch.bool, "ByteStorage": torch.uint8,
    "CharStorage": torch.int8, "ComplexDoubleStorage": torch.complex128, "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "IntStorage": torch.int32, "LongStorage": torch.int64, "ShortStorage": torch.int16, "UntypedStorage": torch.uint8,
}  # fmt: skip
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STORAGE_DTYPES.values()} | {
    name: getattr(torch, name)
    for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
}


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name in a pickle, never looked up; also what comes of calling it."""

    module: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A stretch of one of the file's storages."""

    key: Key
    dtype: torch.dtype
    start: int  # bytes into the storage
    nbytes: int


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """Where a tensor lies in a storage; nothing of it is read yet."""

    storage: Storage
    dtype: torch.dtype
    offset: int  # elements into the storage's stretch
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # elements

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, each counted once per place in the shape."""
        return math.prod(self.shape) * self.dtype.itemsize


def storage(key: Any, kind: Any, count: Any, start: Any = 0, *, room: int = LARGEST_INTEGER) -> Storage | Global:
    """`count` numbers of a storage, from number `start` on.

    Args:
        key: Which storage.
        kind: Its class, such as `torch.FloatStorage`, which tells the kind of number.
        count: How many numbers.
        start: The first of them.
        room: Bytes that there are.

    Returns:
        A `Global` if no network here has such numbers (quantised ones).

    Raises:
        UnpicklingError: They are more than there are.
    """
    if not isinstance(kind, Global) or kind.name not in STORAGE_DTYPES:
        return Global("torch", "storage of an unknown kind")
    if type(key) not in (str, int) or len(str(key)) > LONGEST_KEY:
        raise UnpicklingError("a storage without a proper key")
    dtype = STORAGE_DTYPES[kind.name]
    if not (is_count(count) and is_count(start)) or (start + count) * dtype.itemsize > room:
        raise UnpicklingError(f"storage {key} is larger than the bytes it has")
    return Storage(key, dtype, start * dtype.itemsize, count * dtype.itemsize)


def call(called: Any, arguments: Any) -> Any:
    """What stands for the result of a call: by a rule of ours, or the name itself. Nothing of the file's is called."""
    if not isinstance(called, Global) or not isinstance(arguments, tuple):
        raise UnpicklingError("the pickle calls what cannot be called")
    rule = _RULES.get((called.module, called.name))
    return rule(*arguments) if rule else called


def is_count(number: Any) -> bool:
    """Whether it can be a size, a stride or an offset."""
    return type(number) is int and 0 <= number <= LARGEST_INTEGER


def is_key(key: Any) -> bool:
    """Whether a state dict may have it as a key. Others are left out: to hash tuples of tuples could take for ever."""
    return type(key) in (str, float) or (type(key) is int and -LARGEST_INTEGER <= key <= LARGEST_INTEGER)


def _dict(items: Any = None, *_: Any) -> dict[Any, Any]:
    """A dict, ordered or not; of a list of pairs in Python 2."""
    if items is None or items == ():
        return {}
    if isinstance(items, dict):
        return items
    if not isinstance(items, list):
        raise UnpicklingError("a dict of no pairs")
    made = {key: value for key, value in items if is_key(key)}
    items.clear()  # its only use; a list copied again and again would fill memory
    return made


def _default_dict(_: Any = None, items: Any = None) -> dict[Any, Any]:
    return _dict(items)


def _size(items: Any = ()) -> tuple[Any, ...]:
    if not isinstance(items, tuple | list) or len(items) > MOST_DIMENSIONS:
        raise UnpicklingError("a size that is none")
    return tuple(items)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor | Global:
    """`torch._utils._rebuild_tensor`; its second version adds gradient, hooks and metadata."""
    if isinstance(storage, Global):  # of a kind no network here has, such as quantised
        return storage
    if not isinstance(storage, Storage):
        raise UnpicklingError("a tensor without a storage")
    return within(storage, storage.dtype, offset, shape, stride)


def _tensor_2(storage: Any, offset: Any, shape: Any, stride: Any, *others: Any) -> StoredTensor | Global:
    if len(others) > 2 and others[2]:  # conjugate or negative views, of complex tensors only
        return Global("torch", "complex view")
    return _tensor(storage, offset, shape, stride)


def _tensor_3(  # its storage is of bytes, the kind of number stands apart
    storage: Any, offset: Any, shape: Any, stride: Any, _gradient: Any, _hooks: Any, dtype: Any, *_: Any
) -> StoredTensor | Global:
    if not isinstance(storage, Storage):
        return _tensor(storage, offset, shape, stride)
    if not isinstance(dtype, Global) or dtype.name not in DTYPES:
        return Global("torch", "tensor of an unknown kind")
    return within(storage, DTYPES[dtype.name], offset, shape, stride)


def within(storage: Storage, dtype: torch.dtype, offset: Any, shape: Any, stride: Any) -> StoredTensor:
    """A tensor that has been found to lie within its storage."""
    if not (isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= MOST_DIMENSIONS):
        raise UnpicklingError("a tensor whose shape and strides do not agree")
    if not all(is_count(number) for number in (offset, *shape, *stride)):
        raise UnpicklingError("a tensor whose shape, strides or offset are no counts")
    if 0 not in shape:
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if (last + 1) * dtype.itemsize > storage.nbytes:
            raise UnpicklingError(f"a tensor reaches beyond its storage {storage.key}")
    return StoredTensor(storage, dtype, offset, shape, stride)


def _parameter(data: Any = None, *_: Any) -> Any:
    """A parameter is its data; gradients, hooks and attributes are left."""
    if not isinstance(data, StoredTensor | Global):
        raise UnpicklingError("a parameter without data")
    return data


def _from_type(rebuild: Any, _type: Any, arguments: Any, *_: Any) -> Any:
    """A tensor with attributes, or of a class of its own: its data."""
    rule = _TENSORS.get((rebuild.module, rebuild.name)) if isinstance(rebuild, Global) else None
    return rule(*arguments) if rule else Global("torch", "tensor of an unknown class")


_TENSORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
_RULES: dict[tuple[str, str], Callable[..., Any]] = {
    **_TENSORS,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch.tensor", "_rebuild_from_type_v2"): _from_type,  # its old place
    ("torch._tensor", "_rebuild_from_type"): _from_type,
    ("torch.nn.parameter", "Parameter"): _parameter,  # as the first versions had it
    ("torch", "Size"): _size,
    ("builtins", "dict"): _dict,
    ("__builtin__", "dict"): _dict,  # Python 2
    ("collections", "OrderedDict"): _dict,
    ("collections", "defaultdict"): _default_dict,
}
