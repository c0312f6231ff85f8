"""The project's architecture: the direction of imports, what `--help` may import, and the wheel's contents."""

import ast
import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from sspa.stage2_training.export.wheel import write_wheel

ROOT = Path(__file__).parent.parent
# The floors of stage two, the lowest first: a folder imports from those before it alone.
FLOORS = (
    "compute",
    "evaluation",
    "data",
    "backbones",
    "model",
    "config",
    "features",
    "runs",
    "inference",
    "training",
    "bench",
    "pages",
    "prediction",
    "explanation",
    "report",
    "export",
    "serving",
    "demo",
    "comparison",
    "audit",
    "review",
    "cli",
)
FRONT = ROOT / "shared" / "sspa"
FOLDERS = ("prompts", "shared", "stage1_knowledge", "stage2_training")


def _imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("shared", ("sspa.stage1_knowledge", "sspa.stage2_training", "vllm")),
        ("stage1_knowledge", ("sspa.stage2_training",)),
        ("stage2_training", ("sspa.stage1_knowledge", "vllm")),
    ],
)
def test_imports_point_one_way(folder: str, forbidden: tuple[str, ...]) -> None:
    # The front door names what users import from stage two, and nothing imports it.
    files = [file for file in (ROOT / folder).rglob("*.py") if FRONT not in file.parents]
    assert files
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in _imported(file)
        if any(name == other or name.startswith(f"{other}.") for other in forbidden)
    ]
    assert not wrong


def test_stage_two_has_a_floor_for_each_folder() -> None:
    assert {init.parent.name for init in (ROOT / "stage2_training").glob("*/__init__.py")} == set(FLOORS)
    assert [file.name for file in (ROOT / "stage2_training").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("folder", FLOORS)
def test_a_folder_of_stage_two_imports_from_the_floors_below(folder: str) -> None:
    prefix = "sspa.stage2_training."
    allowed = FLOORS[: FLOORS.index(folder) + 1]
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / "stage2_training" / folder).rglob("*.py")
        for name in _imported(file)
        if name.startswith(prefix) and name.removeprefix(prefix).split(".")[0] not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize("module", ["sspa.stage1_knowledge.commands", "sspa.stage2_training.cli.main"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'vllm', 'open_clip', 'timm', 'transformers', 'pyarrow', 'duckdb', 'matplotlib', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_every_package_of_the_tree_is_listed_for_the_wheel() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join(("sspa", *init.parent.relative_to(ROOT).parts)) if init.parent != FRONT else "sspa"
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == found


@pytest.mark.slow
def test_the_wheel_holds_every_module_prompt_and_label_set(tmp_path: Path) -> None:
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"sspa/{file.relative_to(FRONT if FRONT in file.parents else ROOT)}"
        for folder in FOLDERS
        for pattern in ("*.py", "*.jinja", "*.txt", "*.yaml")
        for file in (ROOT / folder).rglob(pattern)
    }
    assert wanted <= held
    assert all(name.startswith(("sspa/", "sspa_multilabel-")) for name in held)

    # What `sspa-train package` puts beside a model is that, without a build.
    ours = write_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as built, zipfile.ZipFile(ours) as made:
        code = {name for name in built.namelist() if name.startswith("sspa/")}
        assert code == {name for name in made.namelist() if name.startswith("sspa/")}
        assert all(built.read(name) == made.read(name) for name in code)
        names = {name.rpartition("/")[2] for name in made.namelist()}
        assert {"METADATA", "WHEEL", "entry_points.txt", "RECORD"} <= names
        recorded = made.read(next(name for name in made.namelist() if name.endswith("/RECORD"))).decode().splitlines()
        for name, digest, size in (line.rsplit(",", 2) for line in recorded[:-1]):
            found = base64.urlsafe_b64encode(hashlib.sha256(made.read(name)).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={found}", len(made.read(name)))
    assert write_wheel(tmp_path / "dist").read_bytes() == ours.read_bytes()


# The one module that reads tensors (torchscript_archives.py reads bytes); `torch.export.load` opens the file that the
# export itself has just written.
READS_TENSORS = ROOT / "stage2_training" / "compute" / "tensor_files.py"
READERS = (
    *("torch.load", "torch.jit.load", "jit.load", "np.load", "numpy.load", "load_file", "safe_open", "yaml.load"),
    *("yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.loads", "eval", "exec", "load_state_dict_from_url"),
)


def _calls(file: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def _sources() -> list[Path]:
    return [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]


def test_one_module_reads_tensors_and_none_unpickles() -> None:
    for file in _sources():
        if file == READS_TENSORS:
            continue
        assert not {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & _imported(file), file
        for call in _calls(file):
            assert ast.unparse(call.func) not in READERS, f"{file}:{call.lineno}"


def test_nothing_depends_on_the_time_of_day() -> None:
    """A clock that jumps must not change a duration, a deadline or what is kept; records may tell the time."""
    clocks = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "time.localtime", "date.today"}
    for file in _sources():
        for call in _calls(file):
            assert not ast.unparse(call.func).endswith(tuple(clocks)), f"{file}:{call.lineno}"


def test_remote_code_is_off_wherever_a_library_loads_a_model() -> None:
    seen = 0
    for file in _sources():
        for call in _calls(file):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert given.get("trust_remote_code", "False") == "False", f"{file}:{call.lineno}"
            if ast.unparse(call.func).endswith((".from_pretrained", "HFTokenizer")):
                assert "trust_remote_code" in given, f"{file}:{call.lineno}"
                seen += 1
    assert seen == 4
    calls = _calls(READS_TENSORS)
    assert {ast.unparse(call) for call in calls if ast.unparse(call.func) in ("torch.load", "np.load")} == {
        "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path, mmap_mode='r', allow_pickle=False)",
    }


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_what_is_installed_is_held_to_checksums_and_no_host_is_named(extra: str) -> None:
    text = (ROOT / "constraints" / f"{extra}.txt").read_text()
    assert "://" not in text
    entries = re.split(r"\n(?! )", text.strip())
    assert len(entries) > 200
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+ .*\n    --hash=sha256:[0-9a-f]{64}", entry), entry[:80]
