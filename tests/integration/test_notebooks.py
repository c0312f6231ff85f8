"""The notebooks of examples/ run as they are, and are committed with small outputs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed (extra dev)")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra dev)")

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_with_its_outputs_and_without_machine_paths(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 200_000
    assert str(Path.home()) not in text
    assert str(EXAMPLES.parent) not in text
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(cell.outputs for cell in code)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """One for all notebooks, which each find it without names, since importing torch anew takes seconds."""
    from jupyter_client import KernelManager  # which nbclient brings

    manager = KernelManager()
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, kernel: Any, tmp_path: Path) -> None:
    notebook = read(path)
    fresh = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {tmp_path}")
    notebook.cells.insert(0, fresh)
    nbclient.NotebookClient(notebook, km=kernel, timeout=600).execute()
    notebook.cells.remove(fresh)
    kept = {place: bool(cell.get("outputs")) for place, cell in enumerate(read(path).cells)}
    for place, cell in enumerate(notebook.cells):
        if kept[place]:
            assert cell.outputs, cell.source
