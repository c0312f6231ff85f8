"""The weights of a TorchScript archive, without running it.

Torch's own loader compiles an archive's code and runs parts of it, which would let a file do anything. The weights
are plain bytes beside that code (`data/0`, `data/1`, ...); `data.pkl` says which module holds which of them, and the
classes in `code/` say which attributes are parameters and buffers. Here the pickle is read as a description,
and the code is searched as text. The tests hold the result equal to the state dict that torch loads.
"""

import math
import pickletools
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

# An archive's code is a few megabytes at most, modules lie a few levels deep and are some thousands.
_MAX_CODE_BYTES = 64_000_000
_MAX_DEPTH = 64
_MAX_MODULES = 100_000
# Names may share a tensor, and an expanded tensor is larger than its storage; more than this is no model.
_MAX_TIMES_THE_FILE = 16

# A size or an offset that torch can count.
_MAX_SIZE = 2**48

_STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
# What marks an attribute with its type.
_TYPED = frozenset(
    f"torch.jit._pickle.{name}"
    for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
)
_HEADER = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]$", flags=re.MULTILINE
)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, by its table of contents."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive by name, on the CPU; none of its code runs.

    Raises:
        UNREADABLE (tensor_files.py): it is damaged, or none that `torch.jit.save` writes.
    """
    with zipfile.ZipFile(path) as archive:
        folder = _folder(archive)
        classes = _tensor_names(archive, folder)
        views = _views(_unpickle(_stored(archive, f"{folder}data.pkl")), classes)
        used = {view.storage for view in views.values()}
        wanted = sum(map(_View.bytes, views.values())) + sum(map(_Storage.bytes, used))
        if wanted > _MAX_TIMES_THE_FILE * path.stat().st_size:
            raise ValueError(f"its tensors are more than {_MAX_TIMES_THE_FILE} times as large as the file")
        storages = {storage: _read_storage(archive, folder, storage) for storage in used}
    return {
        name: storages[view.storage].as_strided(view.size, view.stride, view.offset) for name, view in views.items()
    }


def _views(root: "_Module", classes: dict[str, frozenset[str]]) -> dict[str, "_View"]:
    """The parameters and buffers in a tree of modules by name."""
    views: dict[str, _View] = {}
    # A module that several others hold counts under each of its names, as in a state dict.
    waiting, seen = [("", root, 0)], 0
    while waiting:
        prefix, module, depth = waiting.pop()
        seen += 1
        if depth > _MAX_DEPTH or seen > _MAX_MODULES:
            raise ValueError(f"its modules are nested without end, such as {prefix[:80]}")
        if module.cls not in classes:
            raise ValueError(f"its code has no module {module.cls}")
        for name, value in module.attributes.items():
            if isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value, depth + 1))
            elif isinstance(value, _View) and name in classes[module.cls]:
                views[prefix + name] = value
    return views


def _folder(archive: zipfile.ZipFile) -> str:
    found = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(found) != 1:
        raise ValueError(f"a TorchScript archive has one data.pkl, this one {len(found)}")
    folder = found[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and _stored(archive, f"{folder}byteorder") != b"little":
        raise ValueError("its numbers are big-endian")
    return folder


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A part that torch writes uncompressed, so that none is larger than the file."""
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise ValueError(f"it has no {name}") from error
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > info.compress_size:
        raise ValueError(f"{name} is compressed")
    return archive.read(info)


def _tensor_names(archive: zipfile.ZipFile, folder: str) -> dict[str, frozenset[str]]:
    """The names of the parameters and buffers of each class, from the headers in the code."""
    code, classes = f"{folder}code/", {}
    files = [info for info in archive.infolist() if info.filename.startswith(code) and info.filename.endswith(".py")]
    if sum(info.file_size for info in files) > _MAX_CODE_BYTES:
        raise ValueError(f"its code has more than {_MAX_CODE_BYTES // 1_000_000} MB")
    for info in files:
        module = info.filename.removeprefix(code).removesuffix(".py").replace("/", ".")
        for cls, *names in _HEADER.findall(archive.read(info).decode()):
            classes[f"{module}.{cls}"] = frozenset(re.findall(r'"([^"]*)"', ", ".join(names)))
    return classes


def _read_storage(archive: zipfile.ZipFile, folder: str, storage: "_Storage") -> Tensor:
    """A storage's numbers, flat; tensors that share one share its memory."""
    values = bytearray(_stored(archive, f"{folder}data/{storage.key}"))
    if len(values) != storage.bytes():
        raise ValueError(f"data/{storage.key} has {len(values):,} bytes, not {storage.numel:,} numbers")
    return torch.frombuffer(values, dtype=storage.dtype) if values else torch.empty(0, dtype=storage.dtype)


class _Storage(NamedTuple):
    dtype: torch.dtype
    key: str
    numel: int

    def bytes(self) -> int:
        return self.numel * self.dtype.itemsize


class _View(NamedTuple):
    """A tensor as the pickle describes it: a part of a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def bytes(self) -> int:
        return math.prod(self.size) * self.storage.dtype.itemsize


@dataclass
class _Module:
    """A module as the pickle describes it: the name of its class, and its attributes."""

    cls: str
    attributes: dict[str, Any] = field(default_factory=dict)


class _Global(str):
    """The full name of a class or function, which nothing imports."""


def _unpickle(data: bytes) -> _Module:
    """What data.pkl describes, as records and plain containers.

    Python's unpickler would hand a stranger's program objects to call and change, and a memo as large as it likes. This
    is its machine with the opcodes that torch writes.

    Raises:
        ValueError: it is damaged, or names or does anything that weights do not need.
    """
    try:
        root = _run(data)
    except (TypeError, AttributeError, LookupError, OverflowError) as error:
        # An operand is missing, or of another kind.
        raise ValueError(f"data.pkl is damaged: {error}") from error
    if not isinstance(root, _Module):
        raise ValueError("data.pkl holds no module")
    return root


def _run(data: bytes) -> object:
    stack: list[Any] = []
    below: list[list[Any]] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "GLOBAL":
                stack.append(_Global(argument.replace(" ", ".")))
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[opcode.name]())
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE" | "APPENDS" | "SETITEMS":
                items, stack = stack, below.pop()
                if opcode.name == "TUPLE":
                    stack.append(tuple(items))
                else:
                    _fill(stack[-1], items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(opcode.name[-1])
                items, stack = stack[-length:], stack[:-length]
                stack.append(tuple(items))
            case "APPEND":
                item = stack.pop()
                _fill(stack[-1], [item])
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "NEWOBJ" | "REDUCE":
                arguments, name = stack.pop(), stack.pop()
                stack.append(_made(name, arguments))
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], _Module) or not isinstance(state, dict):
                    raise ValueError("data.pkl has a module with a state of its own, not attributes")
                stack[-1].attributes = state
            case other:
                raise ValueError(f"data.pkl has the opcode {other}, which torch does not write")
    return None


def _fill(container: object, items: list[Any]) -> None:
    if isinstance(container, list):
        container.extend(items)
    elif isinstance(container, dict) and all(isinstance(key, str | int | float) for key in items[::2]):
        container.update(zip(items[::2], items[1::2], strict=True))
    else:
        raise ValueError("data.pkl fills what is no container")


def _made(name: object, arguments: tuple[Any, ...]) -> object:
    """What a class or function of this name gives; ValueError if weights do not need it."""
    if not isinstance(name, _Global):
        raise ValueError("data.pkl calls what is no name")
    if name.startswith("__torch__."):
        return _Module(name)
    if name == "torch._utils._rebuild_tensor_v2":
        return _view(*arguments[:4])
    if name == "collections.OrderedDict":
        return {}
    if name in _TYPED:
        return arguments[0]
    raise ValueError(f"data.pkl names {name}, which no weights need")


def _storage(pid: tuple[Any, ...]) -> _Storage:
    _, dtype, key, _, numel = pid
    if not (isinstance(dtype, _Global) and dtype in _STORAGES and isinstance(key, str)):
        raise ValueError("data.pkl describes a storage wrongly")
    if type(numel) is not int or not 0 <= numel < _MAX_SIZE:
        raise ValueError(f"data.pkl has a storage of {numel} numbers")
    return _Storage(_STORAGES[dtype], key, numel)


def _view(storage: object, offset: Any, size: Any, stride: Any) -> _View:
    numbers = (offset, *size, *stride)
    tuples = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    if not (isinstance(storage, _Storage) and tuples and all(type(n) is int and 0 <= n < _MAX_SIZE for n in numbers)):
        raise ValueError("data.pkl describes a tensor wrongly")
    return _View(storage, offset, size, stride)
