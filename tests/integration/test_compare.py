"""`sspa-train compare`, `runs` and `bench` as a user would call them, on a run that takes seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from .browser import DESKTOP, PHONE, visit
from .conftest import Ended
from .tiny_run import train_arguments

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Command = Callable[..., Ended]

OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"
OWN = """
about: heads on coloured squares
reference: zero-shot
seeds: [0, 1]
settings: {training.epochs: 1}
conditions:
  half known: {data: {known_fraction: 0.5}}
  one unseen: {data.unseen: 1}
variants:
  zero-shot: {model.head: zero-shot, training.epochs: 0}
  sspa shuffled: {knowledge: "control:shuffled"}
"""


def inputs(squares: Path) -> list[str]:
    """Knowledge, data and settings of the tiny run, without its epochs and folder."""
    arguments = train_arguments(squares, Path("x"))[1:]
    for option in ("--epochs", "--out"):
        place = arguments.index(option)
        del arguments[place : place + 2]
    return arguments


@pytest.mark.slow
def test_compare_runs_what_is_missing_and_leaves_table_page_and_parquet(
    sspa_train: Command, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.yaml").write_text(OWN)
    out = tmp_path / "compared"
    command = ("compare", tmp_path / "own.yaml", "--out", out, *inputs(squares))
    ended = sspa_train(*command, "--seeds", "0")
    assert ended.code == 0, ended.messages
    assert "run 4 of 4: one unseen, zero-shot, seed 0" in ended.messages
    assert ended.messages.count("keeping the frozen tower's features") == 1
    ended = sspa_train(*command)
    assert ended.code == 0, ended.messages
    assert "4 of 8 runs exist already" in ended.messages
    # Both conditions, all variants and seeds read the same three splits of features, in two views.
    assert ended.messages.count("keeping the frozen tower's features") == 0
    for cell in ("half known", "unseen", "sspa shuffled", "difference [95%]"):
        assert cell in ended.output
    rows = duckdb.sql(
        f"SELECT condition, labels, variant, len(seeds), test_map FROM '{out}/comparison.parquet'"
    ).fetchall()
    assert [row[:3] for row in rows] == [
        (condition, labels, variant)
        for condition, parts in (("half known", ["all"]), ("one unseen", ["all", "seen", "unseen"]))
        for labels in parts
        for variant in ("zero-shot", "sspa shuffled")
    ]
    assert {row[3] for row in rows} == {2}
    assert "half known" in (out / "comparison.html").read_text()
    about = json.loads((out / "one-unseen-sspa-shuffled-seed1" / "run.json").read_text())
    assert len(about["data"]["unseen"]) == 1

    listed = sspa_train("runs", out, "--json")
    runs = {run["run"]: run for run in map(json.loads, listed.output.splitlines())}
    assert len(runs) == 8
    best = {(row[0], row[2]): row[4] for row in rows if row[1] == "all"}
    mean = sum(runs[f"half-known-zero-shot-seed{seed}"]["test_map"] for seed in (0, 1)) / 2
    assert mean == pytest.approx(best["half known", "zero-shot"])
    asked = "SELECT head, count(*) AS n FROM runs GROUP BY head ORDER BY head"
    found = sspa_train("runs", "query", asked, "--folder", out, "--json")
    assert [json.loads(line) for line in found.output.splitlines()] == [
        {"head": "sspa", "n": 4},
        {"head": "zero-shot", "n": 4},
    ]


@pytest.mark.slow
def test_its_page_can_be_read_by_everyone_and_links_the_reports(
    browser: "Browser", sspa_train: Command, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.yaml").write_text(
        "{about: two heads, reference: zero shot, seeds: [0], settings: {training.epochs: 1}, variants: {zero shot: "
        "{model.head: zero-shot, training.epochs: 0}, linear: {model.head: linear, loss.kind: bce}}}"
    )
    out = tmp_path / "compared"
    ended = sspa_train("compare", tmp_path / "own.yaml", "--out", out, "--reports", *inputs(squares))
    assert ended.code == 0, ended.messages
    for options in ({"viewport": DESKTOP}, {"viewport": PHONE, "color_scheme": "dark"}):
        with visit(browser, (out / "comparison.html").as_uri(), **options) as page:
            page.evaluate(OPEN_ALL)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.get_by_role("link", name="seed 0").first.click()
            assert page.get_by_role("heading", level=1).inner_text().startswith("zero-shot-seed0: ")
            page.go_back()  # where axe looks
            page.evaluate(OPEN_ALL)


def test_runs_shows_a_table_and_names_what_is_damaged(sspa_train: Command, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "good").symlink_to(trained_run)
    ended = sspa_train("runs", trained_run)
    result = json.loads((trained_run / "result.json").read_text())
    assert ended.code == 0
    for text in (trained_run.name, "squares", "sspa", f"{100 * result['test']['both']['mAP']:.2f}"):
        assert text in ended.output
    ended = sspa_train("runs", tmp_path)
    assert "damaged: broken: " in ended.output
    assert sspa_train("runs", tmp_path / "none").code == 2
    (tmp_path / "empty").mkdir()
    ended = sspa_train("runs", tmp_path / "empty")
    assert (ended.code, "holds no run" in ended.messages) == (2, True)
    refused = sspa_train("runs", "query", "SELECT nothing FROM runs", "--folder", trained_run)
    assert (refused.code, "query refused" in refused.messages) == (2, True)


def test_bench_prints_ratios_and_stages(sspa_train: Command, squares: Path) -> None:
    ended = sspa_train(
        *("bench", "--backbone", f"local-dir:{squares / 'backbone'}", "--image-size", "64", "--batch", "2"),
        *("--rounds", "1", "--workers", "0"),
    )
    assert ended.code == 0, ended.messages
    for text in (
        "| bare tower |",
        "| evaluation |",
        "| training step |",
        "| loading |",
        "| optimizer |",
        "peak memory",
    ):
        assert text in ended.output
    ended = sspa_train("bench", "--processor-time")
    assert (ended.code, "one thread of a CPU only" in ended.messages) == (2, True)
    ended = sspa_train("bench", "--image-size", "6x")
    assert (ended.code, "write NAME@SIZE" in ended.messages) == (2, True)


@pytest.mark.slow
def test_settings_are_chosen_on_folds_that_test_has_no_part_in(
    sspa_train: Command, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "folds.yaml").write_text("""
about: one setting or another
reference: slow
seeds: [0]
settings: {training.epochs: 1, model.head: linear}
conditions: {fold 1: {data.fold: 1/2}, fold 2: {data.fold: 2/2}}
variants: {slow: {training.lr: 0.001}, fast: {training.lr: 0.01}}
""")
    out = tmp_path / "folds"
    ended = sspa_train("compare", tmp_path / "folds.yaml", "--out", out, *inputs(squares))
    assert ended.code == 0, ended.messages
    assert ended.messages.count("keeping the frozen tower's features of train, val (plain, mirrored)") == 1
    scored = [json.loads((out / f"fold-{number}-slow-seed0" / "test_ids.json").read_text()) for number in (1, 2)]
    own = [f"train{number}" for number in range(96)] + [f"val{number}" for number in range(24)]
    assert sorted(scored[0] + scored[1]) == sorted(own)
    about = json.loads((out / "fold-1-fast-seed0" / "run.json").read_text())
    assert about["data"]["name"] == "squares-fold-1-of-2"
    refused = sspa_train("run", "--set", "data.fold=3/2", *inputs(squares))
    assert refused.code == 2
    assert "data.fold = '3/2': is not a fold; write 1/3, 2/3 or 3/3" in refused.messages


@pytest.mark.slow
def test_runs_made_at_once_are_those_made_one_by_one(
    sspa_train: Command, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "own.yaml").write_text(OWN)
    command = ("compare", tmp_path / "own.yaml", *inputs(squares), "--seeds", "0", "--conditions", "half known")
    tables = []
    for out, jobs in (("one", "1"), ("two", "2")):
        ended = sspa_train(*command, "--out", tmp_path / out, "--jobs", jobs)
        assert ended.code == 0, ended.messages
        found = duckdb.sql(f"SELECT condition, labels, variant, test_map FROM '{tmp_path / out}/comparison.parquet'")
        tables.append(found.fetchall())
    assert tables[0] == tables[1]
    assert "2 runs at a time; what each says is in" in ended.messages
    assert "run 2 of 2 has ended: " in ended.messages
    assert len(list((tmp_path / "two" / "logs").glob("*.log"))) == 2
    # What stops the first run stops all, and is one line.
    wrong = ("--set", "training.batch_size=4000", "--set", "backbone.tower=last:1")
    ended = sspa_train(*command, "--out", tmp_path / "three", "--jobs", "2", *wrong)
    assert ended.code == 2
    assert "error: the train split has" in ended.messages
    assert len(list((tmp_path / "three" / "logs").glob("*.log"))) == 1
