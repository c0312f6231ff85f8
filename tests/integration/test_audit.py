"""`sspa-train data audit` finds marks that were flipped."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import duckdb
import numpy as np
import pytest

from sspa.stage2_training.data.manifest import read_manifest, write_manifest

from .conftest import Ended
from .tiny_run import train_arguments

Command = Callable[..., Ended]

pytestmark = pytest.mark.skipif(find_spec("cleanlab") is None, reason="cleanlab is not installed (extra audit)")


@pytest.fixture
def audit(
    sspa_train: Command, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Ended, Path]]:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))

    def command(
        *more: str, manifest: Path = squares / "squares.parquet", root: Path = squares / "pictures"
    ) -> tuple[Ended, Path]:
        out = tmp_path / "audit"
        given = train_arguments(squares, out)
        settings = [word for word in given[given.index("--out") + 2 :] if word]
        knowledge = ("--knowledge", squares / "knowledge.parquet", "--root", root)
        return sspa_train("data", "audit", manifest, *knowledge, "--out", out, *settings, *more), out

    return command


def test_flipped_marks_are_found(audit: Callable[..., tuple[Ended, Path]], squares: Path, tmp_path: Path) -> None:
    manifest = read_manifest(squares / "squares.parquet")
    train = np.flatnonzero(manifest.splits.equal_to("train"))
    flipped, targets = train[::10], manifest.targets.copy()
    targets[flipped, 0] = 1 - targets[flipped, 0]
    write_manifest(replace(manifest, targets=targets), tmp_path / "flipped.parquet")

    ended, out = audit("--set", "model.head=csra", manifest=tmp_path / "flipped.parquet")

    assert ended.code == 0, ended.messages
    rows = duckdb.sql(f"SELECT path, label, mark, probability, quality FROM '{out}/suspects.parquet'").fetchall()
    assert [row[4] for row in rows] == sorted(row[4] for row in rows)
    assert all(quality == pytest.approx(p if mark else 1 - p, abs=1e-6) for _, _, mark, p, quality in rows)
    found = {Path(path).stem for path, label, *_ in rows if label == "square0"}
    planted = {manifest.ids[int(row)] for row in flipped}
    assert len(planted & found) >= 0.7 * len(planted)
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert page.count(", the model says ") == min(len(rows), 60)
    assert "<h1>Audit of flipped.parquet</h1>" in page
    assert "<b>red</b>" not in page  # a label's name is text
    assert re.search(r"images: 0 unreadable, .*, \d+ without any label", ended.messages)


def test_images_that_need_a_look_are_listed(
    audit: Callable[..., tuple[Ended, Path]], squares: Path, tmp_path: Path
) -> None:
    root = tmp_path / "pictures"
    shutil.copytree(squares / "pictures", root)
    manifest = read_manifest(squares / "squares.parquet")
    first, damaged = (manifest.paths[int(row)] for row in np.flatnonzero(manifest.splits.equal_to("train"))[:2])
    in_test = manifest.paths[int(np.flatnonzero(manifest.splits.equal_to("test"))[0])]
    shutil.copyfile(root / first, root / in_test)
    (root / damaged).write_bytes(b"no image")

    ended, out = audit("--set", "training.epochs=1", "--set", "model.head=linear", "--folds", "2", root=root)

    assert ended.code == 0, ended.messages
    assert "cannot be read, so the models do without: 1 of " in ended.messages
    query = (
        f"SELECT finding, path, other FROM '{out}/images.parquet' WHERE finding = 'unreadable' OR split != other_split"
    )
    rows = duckdb.sql(query).fetchall()
    assert ("unreadable", str(root / damaged), None) in rows
    assert ("copies", str(root / first), str(root / in_test)) in rows
    assert "<h2>Copies</h2>" in (out / "audit.html").read_text(encoding="utf-8")


def test_finished_folds_are_kept(audit: Callable[..., tuple[Ended, Path]]) -> None:
    first, out = audit("--set", "training.epochs=1", "--folds", "2")
    assert first.code == 0, first.messages
    (out / "audit.html").unlink()
    second, _ = audit("--set", "training.epochs=1", "--folds", "2")
    assert second.code == 0, second.messages
    assert "epoch 1" not in second.messages
    assert (out / "audit.html").exists()
    other, _ = audit("--set", "training.epochs=2", "--folds", "2")
    assert other.code == 2
    assert "was started with another configuration (training.epochs: 1, now 2)" in other.messages


@pytest.mark.parametrize(
    ("more", "message"), [(("--folds", "1"), "--folds"), (("--set", "model.qsm.kind=x"), "model.qsm.kind")]
)
def test_wrong_use_is_one_line(audit: Callable[..., tuple[Ended, Path]], more: tuple[str, ...], message: str) -> None:
    ended, _ = audit(*more)
    assert ended.code == 2
    assert message in ended.messages
    assert "Traceback" not in ended.messages
