"""TorchScript archives: the same weights as torch.jit.load finds, and nothing of the file runs."""

import pickle
import pickletools
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor, nn

from sspa.stage2_training.compute.tensor_files import UNREADABLE
from sspa.stage2_training.compute.torchscript_archives import is_torchscript, read_torchscript

from ..backbones.architectures import FAMILIES


class Odd(nn.Module):
    """What a module may hold besides plain weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.tied = self.linear.weight
        self.halves = nn.Sequential(nn.Linear(4, 4).half(), nn.Linear(4, 4, bias=False).bfloat16())
        self.again = nn.ModuleList([self.linear, self.norm])
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("transposed", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("expanded", torch.arange(3).expand(1, 3))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("empty", torch.ones(0, 2))
        self.register_buffer("unsaved", torch.ones(2), persistent=False)
        # No weights, so not in a state dict.
        self.plain, self.listed, self.table = torch.ones(2), [1, 2], {"a": 1.0}
        self.name, self.nothing = "odd", None

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x)) * self.scale + self.plain.sum() + self.listed[0] + self.table["a"]


def _clip(family: str) -> nn.Module:
    torch.manual_seed(0)
    config = {name: value for name, value in FAMILIES[family].items() if name != "custom_text"}
    return open_clip.model.CLIP(embed_dim=40, **config).eval()


def _traced_clip() -> torch.jit.ScriptModule:
    inputs = (torch.zeros(1, 3, 64, 64), torch.zeros(1, 24, dtype=torch.long))
    return torch.jit.trace(_clip("vit"), inputs, check_trace=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(_clip("vit")),
        lambda: torch.jit.script(_clip("vit").half()),
        _traced_clip,
        lambda: torch.jit.script(Odd().eval()),
        lambda: torch.jit.trace(Odd().eval(), torch.ones(2, 3)),
    ],
    ids=["scripted CLIP", "in halves", "traced CLIP", "scripted", "traced"],
)
def test_the_weights_are_those_that_torch_loads(make: Callable[[], torch.jit.ScriptModule], tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    make().save(str(path))
    assert is_torchscript(path)
    found, wanted = read_torchscript(path), torch.jit.load(path).state_dict()
    assert found.keys() == wanted.keys()
    assert found
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def test_a_pickle_of_weights_is_no_archive(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt")
    assert not is_torchscript(tmp_path / "weights.pt")


class Evil(nn.Module):
    """Writes a file while it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight, self.training = state
        torch.save(self.weight, "ran")


@pytest.mark.filterwarnings("ignore")
def test_an_archives_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.script(Evil()).save("evil.pt")
    torch.jit.load("evil.pt")
    assert Path("ran").exists(), "the example does what it is for"
    Path("ran").unlink()
    with pytest.raises(ValueError, match="a state of its own"):
        read_torchscript(Path("evil.pt"))
    assert not Path("ran").exists()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "odd.pt"
    torch.jit.script(Odd().eval()).save(str(path))
    return path


def _with_pickle(archive: Path, data: bytes, path: Path) -> Path:
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, data if info.filename.endswith("/data.pkl") else old.read(info))
    return path


def _pickle(archive: Path) -> bytes:
    with zipfile.ZipFile(archive) as parts:
        return parts.read(f"{archive.stem}/data.pkl")


class Shell:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return shutil.move, ("a", "b")


def _text(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def _int(number: int) -> bytes:
    return b"\x8a\x08" + number.to_bytes(8, "little")


def _module(cls: str = "Odd", **attributes: bytes) -> bytes:
    """The opcodes that make a module, kept as number 0 of the memo."""
    items = b"".join(_text(name) + value for name, value in attributes.items())
    return b"c__torch__\n%s\n)\x81q\0}(%sub" % (cls.encode(), items)


def _tensor(size: int, stride: int, offset: int = 0, key: str = "0", numel: int = 1) -> bytes:
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(key) + _text("cpu") + _int(numel) + b"tQ"
    shape = _int(offset) + _int(size) + b"\x85" + _int(stride) + b"\x85"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + b"\x89}tR"


def _written(archive: Path, *modules: bytes, path: Path) -> Path:
    # torch gives a class a number of its own where another has its name.
    name = next(name for opcode, name, _ in pickletools.genops(_pickle(archive)) if opcode.name == "GLOBAL")
    data = b"".join(modules).replace(b"__torch__\nOdd\n", name.replace(" ", "\n").encode() + b"\n")
    return _with_pickle(archive, b"\x80\x02" + data + b".", path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pickle.dumps(Shell(), protocol=2)[2:-1], "names shutil.move"),
        (_module(scale=b"ctorch\ncompile\n)R"), "names torch.compile"),
        (_module(scale=b"ccollections\nOrderedDict\n)R}b"), "a state of its own"),
        (_module(scale=b"c__torch__\nOdd\n}b"), "a state of its own"),
        (_module(scale=b"c__torch__\nOdd\n" + _text("x") + b"a"), "fills what is no container"),
        (_module(scale=b"}(" + b")NuN"), "fills what is no container"),
        (_module(scale=b"(i__torch__\nOdd\n"), "the opcode INST, which torch does not write"),
        (_module(scale=b"tt"), "is damaged"),
        (_module(scale=b"hZ"), "is damaged"),
        (b"}", "holds no module"),
        (_module("Other"), "no module __torch__.Other"),
        (_module(again=b"h\0"), "nested without end"),
        (_module(scale=_tensor(1, 1, offset=12, numel=12)), "out of bounds"),
        (_module(scale=_tensor(1, 1, offset=2**60)), "a tensor wrongly"),
        (_module(scale=_tensor(2**40, 0)), "times as large as the file"),
        (_module(scale=_tensor(1, 1, numel=2**40)), "times as large as the file"),
        (_module(scale=_tensor(1, 1, numel=2**64 - 2**40)), f"a storage of -{2**40} numbers"),
        (_module(scale=_tensor(1, 1, numel=3)), "bytes, not 3 numbers"),
        (_module(scale=_tensor(1, 1, key="x")), "it has no odd/data/x"),
        (_module(scale=_tensor(1, 1, key="../data.pkl")), "it has no odd/data/../data.pkl"),
    ],
)
def test_a_pickle_that_does_anything_else_is_refused(odd: Path, tmp_path: Path, data: bytes, reason: str) -> None:
    path = _written(odd, data, path=tmp_path / "other.pt")
    with pytest.raises((ValueError, RuntimeError), match=reason):
        read_torchscript(path)


def test_a_pickle_by_hand_is_read(odd: Path, tmp_path: Path) -> None:
    """So that the cases above are refused for what they do; with a memo whose size breaks Python's unpickler."""
    data = _module(scale=_tensor(4, 1, key="0", numel=12), plain=_tensor(1, 1, key="missing")) + b"r\xff\xff\xff\x7f"
    assert read_torchscript(_written(odd, data, path=tmp_path / "other.pt"))["scale"].shape == (4,)


def test_compressed_numbers_are_refused(odd: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(odd) as old, zipfile.ZipFile(tmp_path / "new.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(ValueError, match="is compressed"):
        read_torchscript(tmp_path / "new.pt")


def test_damaged_archives_raise_what_is_announced(odd: Path, tmp_path: Path) -> None:
    chance, path, refused = random.Random(0), tmp_path / "damaged.pt", 0
    whole, program = odd.read_bytes(), _pickle(odd)
    for turn in range(600):
        data = bytearray(whole if turn % 2 else program)
        for _ in range(chance.choice((1, 2, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if turn % 2:
            path.write_bytes(data[: chance.randrange(len(data))] if turn % 20 == 1 else data)
        else:
            _with_pickle(odd, bytes(data), path)
        try:
            if is_torchscript(path):
                read_torchscript(path)
        except UNREADABLE:
            refused += 1
    assert refused > 200
