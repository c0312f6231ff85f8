"""The list of runs: what it says of finished, unfinished and damaged ones, and the same in SQL."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.config.resolving import resolve_config
from sspa.stage2_training.runs.listing import list_runs, query_runs

from ..comparison.recorded_runs import KEYS, write_knowledge_file, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, one of them in a comparison; two unfinished; three damaged; and other folders."""
    root = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    targets = (generator.random((20, len(KEYS))) < 0.4).astype(np.int8)
    knowledge = write_knowledge_file(root / "k.parquet")
    config = resolve_config(values={"knowledge": knowledge, "training.seed": 7, "model.head": "linear"})
    write_run(root / "one", config, generator.random(targets.shape), targets, peak_memory_bytes=3_000_000_000)
    shutil.copytree(root / "one", root / "compared" / "two")
    shutil.copytree(root / "one", root / "stopped")
    (root / "stopped" / "result.json").unlink()
    with (root / "stopped" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "los')
    (root / "stopped at once").mkdir()
    shutil.copy(root / "one" / "config.json", root / "stopped at once")
    for name, content in (("cut", '{"best_ep'), ("foreign", '{"best_epoch": 1}')):
        shutil.copytree(root / "one", root / name)
        (root / name / "result.json").write_text(content)
    shutil.copytree(root / "one", root / "headless")
    (root / "headless" / "config.json").unlink()
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text('{"hidden_size": 8}')
    return root


def test_every_run_is_listed_in_its_state(runs: Path) -> None:
    found = {run.run: run for run in list_runs(runs)}
    assert {name: run.state for name, run in found.items()} == {
        "compared/two": "finished",
        "cut": "damaged",
        "foreign": "damaged",
        "headless": "damaged",
        "one": "finished",
        "stopped": "unfinished",
        "stopped at once": "unfinished",
    }
    result = json.loads((runs / "one" / "result.json").read_text())
    one = found["one"]
    assert one.test_map == pytest.approx(100 * result["test"]["both"]["mAP"])
    assert one.val_map == pytest.approx(100 * result["val"]["both"]["mAP"])
    assert (one.head, one.seed, one.best_epoch, one.protocol, one.region_map) == ("linear", 7, 1, "custom", None)
    assert (one.seconds, one.peak_memory_bytes, one.trained_parameters) == (20.0, 3_000_000_000, 1_500_000)
    assert (found["stopped"].epochs_done, found["stopped"].test_map) == (1, None)
    assert "cut/result.json: cannot be read" in found["cut"].problem
    assert "does not hold what a run writes (test: Field required)" in found["foreign"].problem
    assert "headless/config.json: cannot be read" in found["headless"].problem


def test_one_run_can_be_listed_alone(runs: Path) -> None:
    assert [run.run for run in list_runs(runs / "one")] == ["one"]
    with pytest.raises(UserError, match="there is no such folder"):
        list_runs(runs / "none")


def test_sql_over_runs_labels_and_epochs(runs: Path) -> None:
    result = json.loads((runs / "one" / "result.json").read_text())
    columns, rows = query_runs(runs, "SELECT run, state FROM runs WHERE state = 'damaged' ORDER BY run")
    assert columns == ["run", "state"]
    assert rows == [("cut", "damaged"), ("foreign", "damaged"), ("headless", "damaged")]
    _, rows = query_runs(
        runs, "SELECT label, ap FROM per_class WHERE run = 'one' AND split = 'test' AND branch = 'both'"
    )
    expected = {label: 100 * ap for label, ap in result["test"]["both"]["per_class"].items()}
    assert dict(rows) == pytest.approx(expected)
    _, rows = query_runs(runs, "SELECT epoch, loss FROM epochs WHERE run = 'stopped' ORDER BY epoch")
    assert rows == [(0, None), (1, 2.5)]
    mean = np.mean(list(expected.values()))
    _, rows = query_runs(
        runs,
        "SELECT avg(ap), any_value(test_map) FROM per_class JOIN runs USING (run) WHERE run='one' AND split='test'",
    )
    assert rows[0] == pytest.approx((mean, mean))
    with pytest.raises(UserError, match="tables: runs, per_class, epochs"):
        query_runs(runs, "SELECT * FROM nothing")
    with pytest.raises(UserError, match="refused"):
        query_runs(runs, "COPY runs TO 'x.csv'")
