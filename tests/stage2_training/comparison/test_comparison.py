"""Comparisons: their files, what is run, what is reused, and which runs can be compared."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sspa.shared.errors import UserError
from sspa.shared.knowledge import read_knowledge
from sspa.stage2_training.comparison import compare as compare_module
from sspa.stage2_training.comparison.definition import Group, read_comparison, ready_names
from sspa.stage2_training.comparison.plan import plan_runs
from sspa.stage2_training.comparison.rows import group_rows
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.config.schema import setting_keys
from sspa.stage2_training.runs.run_folder import RunFolder

from .recorded_runs import KEYS, TARGETS, scores, two, write_knowledge_file, write_run

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.parametrize(
    ("name", "seeds", "of_all"),
    [
        *((name, 3, {}) for name in ready_names()),
        (str(BENCHMARKS / "settings.yaml"), 1, {"data.name": "voc2007"}),
        (str(BENCHMARKS / "untrained.yaml"), 1, {}),
        (str(BENCHMARKS / "self-training.yaml"), 1, {"data.name": "voc2007"}),
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
