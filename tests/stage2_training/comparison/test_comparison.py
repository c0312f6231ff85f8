"""Comparisons: their files, what is run and what is reused, and the table against its runs."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import numpy as np
import pytest
import torch
from rich.console import Console

from sspa.shared import tables
from sspa.shared.errors import UserError
from sspa.shared.knowledge import read_knowledge
from sspa.stage2_training.comparison import compare as compare_module
from sspa.stage2_training.comparison.compare import compare
from sspa.stage2_training.comparison.definition import Comparison, Group, read_comparison, ready_names
from sspa.stage2_training.comparison.page import write_comparison_page
from sspa.stage2_training.comparison.plan import plan_runs, planned_work
from sspa.stage2_training.comparison.provenance import facts_of, overrides, shared_settings
from sspa.stage2_training.comparison.rows import Row, group_rows, write_rows
from sspa.stage2_training.comparison.table import show_comparison, tables_of
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.config.schema import setting_keys
from sspa.stage2_training.runs.run_folder import RunFolder

from .recorded_runs import KEYS, write_knowledge_file, write_run

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
TARGETS = (np.random.default_rng(0).random((40, len(KEYS))) < 0.4).astype(np.int8)


def scores(seed: int, help_of: float = 0.0) -> np.ndarray:
    """Random probabilities, pulled towards the truth."""
    noise = np.random.default_rng(seed).random(TARGETS.shape)
    return np.clip((1 - help_of) * noise + help_of * TARGETS, 0, 1)


def two(**fields: Any) -> Comparison:
    variants = {"plain": {"model.head": "linear"}, "better": {}}
    return Comparison(**{"about": "two heads", "reference": "plain", "variants": variants, "seeds": (0, 1), **fields})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for training: writes a run of a quality set by its head, and logs the folder's name; "+" if resumed."""
    names: list[str] = []

    def train(config: RunConfig, path: Path, device: torch.device, resume: bool) -> None:
        help_of = 0.1 if config.model.head == "linear" else 0.4
        write_run(path, config, scores(config.training.seed, help_of), TARGETS)
        names.append(path.name + "+" * resume)

    monkeypatch.setattr(compare_module, "run", train)
    monkeypatch.setattr(compare_module, "_forget_peak_memory", lambda device: None)
    return names


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`compare` into one folder, with knowledge about KEYS, and as few resamples as an interval can have."""
    monkeypatch.setattr(compare_module, "group_rows", partial(group_rows, resamples=60))
    knowledge = write_knowledge_file(tmp_path / "k.parquet")

    def of(comparison: Comparison, *settings: str, **given: Any) -> Any:
        given = {"knowledge": knowledge, **given}
        work = planned_work(comparison, tmp_path / "out", [], settings, given)
        return compare(work, comparison.reference, tmp_path / "logs", torch.device("cpu"))

    return of


def written_page(comparison: Comparison, rows: Sequence[Row], folder: Path) -> str:
    """The page about the runs in `out`."""
    runs = plan_runs(comparison, folder / "out", [], [], {"knowledge": folder / "k.parquet"})
    return write_comparison_page(comparison, rows, runs, "sspa-train compare own.yaml", folder / "c.html").read_text()


@pytest.mark.parametrize(
    ("name", "seeds", "of_all"),
    [
        *((name, 3, {}) for name in ready_names()),
        (str(BENCHMARKS / "settings.yaml"), 1, {"data.name": "voc2007"}),
        (str(BENCHMARKS / "untrained.yaml"), 1, {}),
    ],
)
def test_every_run_that_comes_with_the_project_is_a_valid_configuration(
    name: str, seeds: int, of_all: dict[str, str], tmp_path: Path
) -> None:
    comparison = read_comparison(name)
    given = {"knowledge": write_knowledge_file(tmp_path / "k.parquet"), **of_all}
    planned = plan_runs(comparison, tmp_path / "out", [], [], given)
    assert len(planned) == seeds * len(comparison.variants) * max(1, len(comparison.conditions))
    # Two variants that differ in nothing would be a slip of the pen.
    told = {(run.group.title, run.config.model_dump_json()) for run in planned}
    assert len(told) == len(planned)


def test_what_a_condition_or_variant_sets_itself_is_said_to_stay(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    comparison = read_comparison("few-shot").only(["linear", "SSPA"], ["4 shots", "8 shots"])
    given = {"knowledge": write_knowledge_file(tmp_path / "k.parquet"), "data.name": "ucm"}
    settings = ["training.lr=0.004", "training.warmup_epochs=1"]
    planned = plan_runs(comparison.with_seeds("0"), tmp_path / "out", [], settings, given)
    rates = {(run.group.condition, run.variant): run.config.training.lr for run in planned}
    assert rates["4 shots", "SSPA"] == 0.004
    assert rates["8 shots", "SSPA"] != 0.004
    assert rates["4 shots", "linear"] != 0.004
    said = capfd.readouterr().err
    assert "--set training.lr does not apply to those that set their own: 8 shots, linear" in said
    assert "warmup" not in said


def test_the_ablation_touches_every_box() -> None:
    touched = {key for own in read_comparison("ablation").variants.values() for key in own}
    # Widths, start values and regularisation are the recipe's, not boxes.
    recipe = {
        *("model.width", "model.scale", "model.bias", "model.region_dropout", "model.dsf.scale"),
        *("model.qsm.residual_weight", "model.qsm.dropout", "model.gdma.heads", "model.gdma.dropout"),
        *("model.aggregator.temperature", "model.aggregator.top", "model.head", "model.kap.select_temperature"),
    }
    boxes = ("kap", "cap", "dsf", "qsm", "gdma", "aggregator", "global_branch")
    known = {key for key in setting_keys() if key.startswith("model.") and key.split(".")[1] in boxes}
    assert {key for key in known - recipe if key not in touched} == set()
    assert "loss.kind" in touched


def test_data_may_be_a_name_a_list_or_a_mapping_with_nested_settings() -> None:
    assert [group.data for group in two(data="scenes").groups()] == ["scenes"]
    assert [group.settings for group in two(data=["scenes", "voc2007"]).groups()] == [
        {"data.name": "scenes"},
        {"data.name": "voc2007"},
    ]
    own = {"voc2007": {"data.root": "VOC", "model": {"qsm": {"layers": 3}}}, "all": {"data.name": "a.parquet"}}
    groups = two(data=own, conditions={"few": {"data": {"shots": 1}}, "many": None}).groups()
    assert [group.title for group in groups] == ["voc2007, few", "voc2007, many", "all, few", "all, many"]
    assert groups[0].settings == {
        "data.name": "voc2007",
        "data.root": "VOC",
        "model.qsm.layers": 3,
        "data.shots": 1,
    }
    assert groups[3].settings == {"data.name": "a.parquet"}


def test_wrong_comparisons_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean baselines"):
        read_comparison("baseline")
    file = tmp_path / "own.yaml"
    for text, message in (
        ("about: x\nreference: c\nvariants: {a: {}, b: {}}\n", "'c' is none of the variants"),
        ("about: x\nreference: a\nvariants: {a: {}, b: {}}\nseeds: [1, 1]\n", "hold one twice"),
        ("about: x\nreference: a\nvariants: {a: {}, ../b: {}}\n", "variants.../b"),
        ("about: [", "cannot be read as YAML"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=re.escape(message)):
            read_comparison(str(file))
    with pytest.raises(UserError, match="no variant 'z'"):
        read_comparison("baselines").only(["z"])
    with pytest.raises(UserError, match="no condition '3 shots'; there are 1 shot"):
        read_comparison("few-shot").only(None, ["3 shots"])
    with pytest.raises(UserError, match="--seeds 1,1"):
        two().with_seeds("1,1")
    assert read_comparison("baselines").with_reference("SSPA").only(["CSRA"]).variants.keys() == {"CSRA", "SSPA"}
    with pytest.raises(UserError, match="--reference sspa: there is no such variant; there are zero-shot, linear"):
        read_comparison("baselines").with_reference("sspa")


def test_only_what_is_missing_is_run(run: Callable[..., Any], made: list[str]) -> None:
    rows, failed = run(two(seeds=(0,)))
    assert made == ["better-seed0", "plain-seed0"]  # the head that reads regions, whose features serve both
    assert not failed
    assert [row.seeds for row in rows] == [(0,), (0,)]
    rows, _ = run(two())
    assert made[2:] == ["better-seed1", "plain-seed1"]
    assert [row.seeds for row in rows] == [(0, 1), (0, 1)]
    # How many processes read images changes nothing.
    run(two(), "data.workers=7")
    assert len(made) == 4


def test_other_settings_or_knowledge_are_not_mixed_in(run: Callable[..., Any], made: list[str], tmp_path: Path) -> None:
    run(two())
    with pytest.raises(UserError, match=r"plain-seed0: was made with other settings \(training.epochs\)"):
        run(two(), "training.epochs=9")
    moved = tmp_path / "elsewhere.parquet"
    write_knowledge_file(moved)
    run(two(), knowledge=moved)
    write_knowledge_file(moved, "A {} has two wings.")
    with pytest.raises(UserError, match="was made with other knowledge than"):
        run(two(), knowledge=moved)
    with pytest.raises(UserError, match="names its own data"):
        run(two(data="scenes"), **{"data.name": "voc2007"})
    assert len(made) == 4


def test_an_unfinished_run_goes_on_and_foreign_files_stay(
    run: Callable[..., Any], made: list[str], tmp_path: Path
) -> None:
    run(two())
    out = tmp_path / "out"
    (out / "better-seed1" / "result.json").unlink()
    run(two())
    assert made[4:] == ["better-seed1+"]
    (out / "better-seed2").mkdir()
    (out / "better-seed2" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="better-seed2: exists and is not a run folder"):
        run(two(seeds=(0, 1, 2)))
    assert (out / "better-seed2" / "holiday.jpg").read_bytes() == b"mine"


def test_a_failure_stops_only_itself(run: Callable[..., Any], made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    train = compare_module.run

    def fail(config: RunConfig, path: Path, device: torch.device, resume: bool) -> None:
        if config.training.seed == 1 and config.model.head == "sspa":
            raise UserError("the loss is nan")
        train(config, path, device, resume)

    monkeypatch.setattr(compare_module, "run", fail)
    rows, failed = run(two())
    assert failed == ["better, seed 1"]
    assert [row.seeds for row in rows] == [(0, 1), (0,)]
    # The difference is over the seed that both have.
    assert rows[1].difference == pytest.approx(rows[1].values[0] - rows[0].values[0])

    def always_fail(config: RunConfig, path: Path, device: torch.device, resume: bool) -> None:
        raise UserError("no such data")

    monkeypatch.setattr(compare_module, "run", always_fail)
    with pytest.raises(UserError, match="no such data"):
        run(two(data="scenes"))


def test_each_seed_trains_on_a_control_of_its_own(run: Callable[..., Any], made: list[str], tmp_path: Path) -> None:
    variants = {"real": {}, "shuffled": {"knowledge": "control:shuffled"}}
    comparison = two(variants=variants, reference="real", seeds=(0, 1, 2, 3))
    run(comparison)
    real = read_knowledge(tmp_path / "k.parquet").descriptions
    drawn = [
        read_knowledge(tmp_path / "out" / "knowledge" / f"shuffled-seed{seed}.parquet").descriptions
        for seed in range(4)
    ]
    for descriptions in drawn:
        assert sorted(descriptions.values()) == sorted(real.values())
        assert all(descriptions[key] != real[key] for key in KEYS)
    assert any(descriptions != drawn[0] for descriptions in drawn)
    config = RunFolder(tmp_path / "out" / "shuffled-seed1").config()
    assert config.knowledge == tmp_path / "out" / "knowledge" / "shuffled-seed1.parquet"
    count = len(made)
    run(comparison)
    assert len(made) == count


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


def test_folders_have_no_spaces_and_those_of_earlier_versions_are_kept(
    run: Callable[..., Any], made: list[str], tmp_path: Path
) -> None:
    comparison = two(variants={"as is": {"model.head": "linear"}, "SSPA  twice": {}}, reference="as is")
    run(comparison)
    assert sorted(made) == ["SSPA-twice-seed0", "SSPA-twice-seed1", "as-is-seed0", "as-is-seed1"]
    (tmp_path / "out" / "as-is-seed0").rename(tmp_path / "out" / "as is-seed0")
    run(comparison)
    assert len(made) == 4
    with pytest.raises(UserError, match="two runs of the comparison would share a folder"):
        run(two(variants={"a b": {}, "a-b": {}}, reference="a b"))


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


def folders(tmp_path: Path, **variants: Sequence[dict[str, Any]]) -> dict[str, dict[int, RunFolder]]:
    config = plan_runs(two(), tmp_path, [], [], {"knowledge": write_knowledge_file(tmp_path / "k.parquet")})[0].config
    return {
        name: {
            seed: write_run(tmp_path / f"{name}{seed}", config, **{"targets": TARGETS, **of_seed})
            for seed, of_seed in enumerate(by_seed)
        }
        for name, by_seed in variants.items()
    }


def test_seen_and_unseen_labels_are_scored_apart(tmp_path: Path) -> None:
    hidden = [("dog",), ("ox", "yak")]
    made = folders(
        tmp_path,
        zero=[{"probabilities": scores(seed), "unseen": hidden[seed]} for seed in (0, 1)],
        all=[{"probabilities": scores(seed, 0.3)} for seed in (0, 1)],
    )
    rows = group_rows(Group("", "", {}), made, "zero", resamples=50)
    assert [(row.labels, row.variant) for row in rows] == [
        (labels, variant) for labels in ("all", "seen", "unseen") for variant in ("zero", "all")
    ]
    for row in rows:
        for seed, value in zip(row.seeds, row.values, strict=True):
            per_class = made[row.variant][seed].read_json("result.json")["test"]["both"]["per_class"]
            wanted = {"all": KEYS, "unseen": hidden[seed], "seen": set(KEYS) - set(hidden[seed])}[row.labels]
            assert value == pytest.approx(100 * np.mean([per_class[key] for key in wanted]))


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


def test_runs_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    good = {"probabilities": scores(0)}
    for other, message in (
        ({"protocol": "voc2007-11-point"}, "another protocol"),
        ({"targets": 1 - TARGETS}, "other test images"),
        ({"targets": TARGETS[:30], "probabilities": scores(0)[:30]}, "other test images"),
    ):
        made = folders(tmp_path / message.split()[0], a=[good], b=[{**good, **other}])
        with pytest.raises(UserError, match=message):
            group_rows(Group("", "", {}), made, "a")
