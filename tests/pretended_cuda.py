"""A CUDA device where there is none: tensors live on the CPU, and whatever would fail on a GPU fails here too.

A tensor that was made on or moved to `cuda` is marked; operations pass the mark on, `.device` reports it, and what
a GPU refuses is refused: an operation on marked and unmarked tensors, NumPy's view of a marked one. Every call from
Python into torch is seen (`TorchFunctionMode`); what happens inside one is not, and need not be, since all its tensors
come from its arguments. Speed, memory and a GPU's arithmetic are not pretended.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # It notes torch's functions when it is first imported: before they are replaced here.
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
_MARK = "_pretends_to_be_on_a_gpu"

# What may read one device and write the other.
_ACROSS = {"copy_", "_foreach_copy_", "_has_compatible_shallow_copy_type", "is_set_to", "load_state_dict"}
_WAITS = {"item", "tolist", "cpu", "nonzero", "unique", "__bool__", "__float__", "__int__", "__index__", "equal"}


class MixUpError(RuntimeError):
    """Tensors of two devices in one operation."""


@contextmanager
def pretended_cuda() -> Iterator[Counter[str]]:
    """Let torch seem to have one CUDA device, in this thread and in those that start meanwhile.

    Yields how often each function made the CPU wait for the GPU, by name.
    """
    waits: Counter[str] = Counter()
    started = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        with _OneGpu(waits):
            started(thread)

    with ExitStack() as stack:
        for where, stand_in in _STAND_INS.items():
            stack.enter_context(mock.patch(where, stand_in))
        stack.enter_context(mock.patch.object(threading.Thread, "run", run))
        stack.enter_context(mock.patch.object(torch.autocast, "__init__", _autocast))
        stack.enter_context(mock.patch.object(torch.nn.Parameter, "__new__", _parameter))
        stack.enter_context(_OneGpu(waits))
        yield waits


class _OneGpu(TorchFunctionMode):
    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        if attribute := _ATTRIBUTES.get(_attribute_of(function)):
            return attribute(function, arguments)
        name = getattr(function, "__name__", "")
        tensors = list(_tensors((arguments, options)))
        on_gpu = [tensor for tensor in tensors if is_on_gpu(tensor)]
        if on_gpu and name in _WAITS:
            self._waits[name] += 1
        if name in {"numpy", "__array__"} and on_gpu:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if function is Tensor.backward:
            # Hooks and functions of ours run within it.
            with _OneGpu(self._waits):
                options["grad_tensors"] = options.pop("gradient", None)
                return torch.autograd.backward(*arguments, **options)
        if name in _MOVES:
            return _moved(function, name, arguments, options)
        if name not in _ACROSS and not (name == "__setitem__" and is_on_gpu(arguments[0])):
            _check(name, arguments, tensors, on_gpu)
        wanted = options.get("device")
        if wanted is not None:
            options = {**options, "device": CPU}
        result = function(*arguments, **options)
        to_gpu = bool(on_gpu) if wanted is None else torch.device(wanted).type == "cuda"
        if name in _ACROSS:
            return result
        for tensor in _tensors(result):
            _set(tensor, to_gpu)
        return result


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def is_on_gpu(tensor: Tensor) -> bool:
    """Whether the tensor pretends to be on the GPU."""
    return tensor.__dict__.get(_MARK, False)


def _set(tensor: Tensor, on_gpu: bool) -> Tensor:
    tensor.__dict__[_MARK] = on_gpu
    return tensor


def _check(name: str, arguments: tuple[Any, ...], tensors: list[Tensor], on_gpu: list[Tensor]) -> None:
    if name == "__getitem__" and is_on_gpu(arguments[0]):
        return  # A tensor on a GPU takes indices from the CPU.
    with torch._C.DisableTorchFunction():
        elsewhere = [tensor for tensor in tensors if not is_on_gpu(tensor) and tensor.dim() > 0]
    if on_gpu and elsewhere:
        raise MixUpError(f"{name}: expected all tensors on one device, found cuda:0 and cpu")


def _moved(function: Callable[..., Any], name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    """`to`, `cuda` and `cpu`, with the copy that a change of device makes."""
    tensor = arguments[0]
    if name in {"cuda", "cpu"}:
        device: torch.device | None = GPU if name == "cuda" else CPU
        arguments, options = arguments[:1], {}
    else:
        others = [value for value in (*arguments[1:], options.get("other")) if isinstance(value, Tensor)]
        named = [torch.device(value) for value in (*arguments[1:2], options.get("device")) if _names_device(value)]
        device = named[0] if named else None
        if others:
            device = GPU if is_on_gpu(others[0]) else CPU
        arguments = tuple(CPU if _names_device(value) else value for value in arguments)
        options = {key: CPU if key == "device" and value is not None else value for key, value in options.items()}
    to_gpu = is_on_gpu(tensor) if device is None else device.type == "cuda"
    result = tensor if name == "cuda" else function(*arguments, **options)
    if result is tensor and to_gpu != is_on_gpu(tensor):
        result = type(tensor)() if is_lazy(tensor) else tensor.clone()
    return _set(result, to_gpu) if result is not tensor else result


_MOVES = {"to", "cuda", "cpu"}


def _names_device(value: object) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value.partition(":")[0] in {"cuda", "cpu"})


def _attribute_of(function: Callable[..., Any]) -> tuple[Any, str]:
    return getattr(function, "__self__", None), getattr(function, "__name__", "")


def _device(_: Callable[..., Any], arguments: tuple[Any, ...]) -> torch.device:
    return GPU if is_on_gpu(arguments[0]) else CPU


def _is_cuda(_: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    return is_on_gpu(arguments[0])


def _is_cpu(_: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    return not is_on_gpu(arguments[0])


def _set_data(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """A module that moves gives its parameters the data of the moved ones."""
    function(*arguments)
    _set(arguments[0], is_on_gpu(arguments[1]))


_ATTRIBUTES: dict[tuple[Any, str], Callable[..., Any]] = {
    (Tensor.device, "__get__"): _device,
    (Tensor.is_cuda, "__get__"): _is_cuda,
    (Tensor.is_cpu, "__get__"): _is_cpu,
    (Tensor.data, "__set__"): _set_data,
}

_real_parameter = torch.nn.Parameter.__new__


def _parameter(of: type[torch.nn.Parameter], data: Tensor | None = None, requires_grad: bool = True) -> Tensor:
    made = _real_parameter(of, data, requires_grad)
    return made if data is None else _set(made, is_on_gpu(data))


_real_autocast = torch.autocast.__init__


def _autocast(self: torch.autocast, device_type: str, *arguments: Any, **options: Any) -> None:
    _real_autocast(self, "cpu" if device_type == "cuda" else device_type, *arguments, **options)


class _Generator(torch.Generator):
    def __new__(cls, device: object = None) -> "_Generator":
        return super().__new__(cls)


def _always(value: Any) -> Callable[..., Any]:
    return partial(lambda value, *_, **__: value, value)


_STAND_INS: dict[str, Callable[..., Any]] = {
    "torch.cuda.is_available": _always(True),
    "torch.cuda.is_initialized": _always(True),
    "torch.cuda.device_count": _always(1),
    "torch.cuda.current_device": _always(0),
    "torch.cuda.is_bf16_supported": _always(True),
    "torch.cuda.get_device_name": _always("a pretended GPU"),
    "torch.cuda.get_device_capability": _always((9, 0)),
    "torch.cuda.set_device": _always(None),
    "torch.cuda.synchronize": _always(None),
    "torch.cuda.empty_cache": _always(None),
    "torch.cuda.reset_peak_memory_stats": _always(None),
    "torch.cuda.max_memory_allocated": _always(0),
    # A state that no run shares with torch's own on the CPU.
    "torch.cuda.get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
    "torch.cuda.set_rng_state": _always(None),
    "torch.cuda.manual_seed_all": _always(None),
    "torch.Generator": _Generator,
    "torch.accelerator.current_stream": _always(SimpleNamespace(is_capturing=_always(False))),
    "torch.Tensor.pin_memory": lambda tensor, *_: tensor,
}
