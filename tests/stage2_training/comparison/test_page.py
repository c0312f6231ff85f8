"""The tables and the page of a comparison, against its runs."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import numpy as np
import pytest
from rich.console import Console

from sspa.shared import tables
from sspa.shared.errors import UserError
from sspa.stage2_training.comparison.definition import Comparison, Group
from sspa.stage2_training.comparison.page import write_comparison_page
from sspa.stage2_training.comparison.plan import plan_runs
from sspa.stage2_training.comparison.provenance import facts_of, overrides, shared_settings
from sspa.stage2_training.comparison.rows import Row, group_rows, write_rows
from sspa.stage2_training.comparison.table import show_comparison, tables_of
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.runs.run_folder import RunFolder

from .recorded_runs import two, write_knowledge_file, write_run


def written_page(comparison: Comparison, rows: Sequence[Row], folder: Path) -> str:
    """The page about the runs in `out`."""
    runs = plan_runs(comparison, folder / "out", [], [], {"knowledge": folder / "k.parquet"})
    return write_comparison_page(comparison, rows, runs, "sspa-train compare own.yaml", folder / "c.html").read_text()


def test_rows_are_those_of_the_runs_and_go_to_page_and_parquet(
    run: Callable[..., Any], made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = two(seeds=(0, 1, 2))
    rows, _ = run(comparison)
    plain, better = rows
    results = [RunFolder(tmp_path / "out" / f"better-seed{seed}").read_json("result.json") for seed in range(3)]
    plain_results = [RunFolder(tmp_path / "out" / f"plain-seed{seed}").read_json("result.json") for seed in range(3)]
    values = [100 * result["test"]["both"]["mAP"] for result in results]
    (tmp_path / "out" / "better-seed1" / "report.html").touch()
    assert better.values == pytest.approx(values)
    assert better.test_map == pytest.approx(np.mean(values))
    assert better.test_deviation == pytest.approx(np.std(values, ddof=1))
    assert better.difference == pytest.approx(better.test_map - plain.test_map)
    assert 0 < better.difference_low < better.difference < better.difference_high
    assert (better.region_map, better.peak_memory_bytes, better.epoch_seconds) == (None, None, 3.0)
    assert plain.difference is plain.difference_low is None

    write_rows(rows, tmp_path / "c.parquet")
    found = duckdb.sql(f"SELECT variant, test_map, len(seeds), difference FROM '{tmp_path}/c.parquet'").fetchall()
    assert found == [("plain", plain.test_map, 3, None), ("better", better.test_map, 3, better.difference)]

    page = written_page(comparison, rows, tmp_path)
    for text in (f"{better.test_map:.2f} ± {better.test_deviation:.2f}", f"{better.difference:+.2f} [", "custom ("):
        assert text in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg") == 2
    # Nothing but the runs is linked; one of them has a report.
    linked = [unquote(address) for address in re.findall(r"(?:src|href)=\"(?!data:|#)([^\"]*)", page)]
    assert linked == [
        f"out/{name}-seed{seed}" + ("/report.html" if (name, seed) == ("better", 1) else "")
        for name in ("plain", "better")
        for seed in range(3)
    ]
    for result in results:
        assert f"{100 * result['test']['both']['mAP']:.2f}</a>" in page
    of_cat = [np.mean([run["test"]["both"]["per_class"]["cat"] for run in of]) for of in (plain_results, results)]
    cells = re.findall(r"<tr><td>cat</td>(.*?)</tr>", page)
    assert cells == [
        f'<td class="number">{100 * of_cat[0]:.1f}</td><td class="number">{100 * (of_cat[1] - of_cat[0]):+.1f}</td>'
    ]
    for said in ("sspa-train compare own.yaml", "recorded, hash dddd", "custom (", "k.parquet, hash", "0; 1; 2"):
        assert said in page

    show_comparison(comparison, rows)
    shown = capsys.readouterr().out
    assert f"{better.difference:+.2f} [{better.difference_low:+.2f}, {better.difference_high:+.2f}]" in shown
    assert "test mAP in percent" in shown


def test_the_tables_fit_a_terminal_of_80_columns(
    run: Callable[..., Any], made: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "output", Console(width=80))
    variants = {"linear probing": {"model.head": "linear"}, "SSPA without filtering": {}}
    conditions = {"16 images per label": {"data.shots": 16}, "all": {}}
    comparison = two(
        variants=variants,
        reference="linear probing",
        conditions=conditions,
        seeds=(0, 1),
        data=["sets/one-of-two.manifest.parquet"],
    )
    rows, _ = run(comparison)
    rows = [replace(row, difference=-12.34, difference_low=-23.45, difference_high=-1.23) for row in rows]
    show_comparison(comparison, rows)
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(comparison.about)]
    assert max(map(len, lines)) <= 80
    for whole in ("one-of-two, all", "SSPA without filtering", "-12.34 [-23.45, -1.23]", "s/epoch", "1.50 M"):
        assert any(whole in line for line in lines), whole


def test_the_page_says_what_all_runs_share_and_what_each_sets(
    run: Callable[..., Any], made: list[str], tmp_path: Path
) -> None:
    comparison = two(settings={"training.weight_decay": 0.25}, variants={"plain": {"model.head": "linear"}, "own": {}})
    run(comparison)
    runs = plan_runs(comparison, tmp_path / "out", [], ["training.epochs=7"], {"knowledge": tmp_path / "k.parquet"})
    shared = dict(shared_settings(runs))
    assert (shared["training.epochs"], shared["training.weight_decay"]) == ("7", "0.25")
    assert not {"model.head", "training.seed", "knowledge", "loss.kind"} & shared.keys()
    assert overrides(comparison.variants) == [("plain", "model.head=linear"), ("own", "")]
    for run_of, finished in zip(runs, ("2026-01-02 03:04 UTC", "2026-01-03 03:04 UTC", None, None), strict=True):
        file = run_of.path / "result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "finished": finished}))
    facts = dict(facts_of(runs))
    assert facts["finished"] == "2026-01-02 03:04 UTC to 2026-01-03 03:04 UTC"
    assert facts["protocol"].startswith("custom (")
    assert facts["computed"] == "on one; torch 2; source not under git"


def test_where_the_data_has_no_test_the_figures_are_those_of_val(
    run: Callable[..., Any], made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = two(seeds=(0,))
    run(comparison)
    for variant in ("plain", "better"):
        file = tmp_path / "out" / f"{variant}-seed0" / "result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "measured": "val"}))
    rows, _ = run(comparison)

    show_comparison(comparison, rows)
    page = written_page(comparison, rows, tmp_path)

    shown = capsys.readouterr().out
    assert {row.measured for row in rows} == {"val"}
    assert "val mAP in percent" in shown
    assert "test mAP" not in shown + page
    mixed = [rows[0], replace(rows[1], measured="test")]
    assert [title for title, _ in tables_of(mixed)[0]][1:4] == ["val", "split", "mAP"]


def test_a_page_over_conditions_escapes_what_it_is_given(
    run: Callable[..., Any], made: list[str], tmp_path: Path
) -> None:
    variants = {"<b>plain": {"model.head": "linear"}, "better $x_1^{2}$": {}}
    comparison = two(
        variants=variants, reference="<b>plain", conditions={"few": {"data.shots": 1}, "all": {}}, seeds=(0,)
    )
    rows, _ = run(comparison)
    assert [(row.condition, row.variant) for row in rows] == [
        (condition, variant) for condition in ("few", "all") for variant in variants
    ]
    page = written_page(comparison, rows, tmp_path)
    assert "labelled training images" not in page
    counted = [replace(row, train_images={"few": 12.3, "all": 400.0}[row.condition]) for row in rows]
    assert "labelled training images" in written_page(comparison, counted, tmp_path)
    assert "<b>" not in page
    assert "better $x_1^{2}$" in page
    assert page.count("<svg") == 5
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_headline_figures_of_the_protocol_are_shown_beside_map(tmp_path: Path) -> None:
    config = RunConfig(knowledge=write_knowledge_file(tmp_path / "k.parquet"))
    targets = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=np.int8)
    # From 0.3 on, every cell is right; at 0.5, the labels find 1, 0, 2 and 1 of their two positives.
    scores = np.where(targets == 1, np.array([[0.9], [0.4], [0.4], [0.9]]), 0.1)
    folder = write_run(tmp_path / "run", config, scores, targets, protocol="peta-35")

    (row,) = group_rows(Group("recorded", "", {}), {"only": {0: folder}}, "only", resamples=10)
    write_rows([row], tmp_path / "c.parquet")

    assert list(row.headline) == ["mA", "accuracy", "precision", "recall", "F1"]
    assert row.headline["mA"] == pytest.approx(75)
    assert row.headline_tuned == pytest.approx(dict.fromkeys(row.headline, 100))
    assert duckdb.sql(f"SELECT headline['mA'] FROM '{tmp_path}/c.parquet'").fetchall() == [(pytest.approx(75),)]
    _, fixed, tuned, _ = ([cell(row) for _, cell in columns] for columns in tables_of([row]))
    assert (fixed[:2], tuned[:2]) == (["only", "75.00"], ["only", "100.00"])

    folder.write_json("thresholds.json", {"description": "cut", "values": {"cat": 0.3}})
    with pytest.raises(UserError, match=r"thresholds\.json has none for 'dog'"):
        group_rows(Group("recorded", "", {}), {"only": {0: folder}}, "only", resamples=10)
