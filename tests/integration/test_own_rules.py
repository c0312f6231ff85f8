"""A run measured by a protocol of one's own, from the first command to the report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sspa.stage2_training.evaluation.own_protocol import read_own_protocol
from sspa.stage2_training.runs.run_folder import RunFolder

from .conftest import Ended
from .tiny_run import train_arguments

Command = Callable[..., Ended]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "own.yaml"
    file.write_text("name: mine\nthreshold: 0.3\ntop_k: 2\nheadline: [OF1@2, mAP]\nsource: our report\n")
    return file


def test_a_run_carries_its_rules(
    sspa_train: Command, squares: Path, tmp_path: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    protocol, out = read_own_protocol(rules), tmp_path / "run"
    trained = sspa_train(*train_arguments(squares, out), "--protocol", rules)
    assert trained.code == 0
    assert f"protocol mine ({protocol.hash})" in trained.output
    assert trained.output.index("OF1@2") < trained.output.index("mAP")
    assert RunFolder(out).record().protocol.rules() == protocol
    assert f"mine ({protocol.hash})" in (out / "report.html").read_text()

    # Another version of the file is another protocol: half of a run under each would be a result under neither.
    kept = rules.read_text()
    rules.write_text(kept.replace("0.3", "0.4"))
    unfinished = tmp_path / "unfinished"
    shutil.copytree(out, unfinished)
    (unfinished / "result.json").unlink()
    resumed = sspa_train(*train_arguments(squares, unfinished), "--protocol", rules, "--resume")
    assert resumed.code == 2
    assert "the protocol mine has changed since the run was started" in resumed.messages

    # The run goes where the file is not.
    rules.unlink()
    evaluated = sspa_train("evaluate", out, "--json")
    assert evaluated.code == 0, evaluated.messages
    assert json.loads(evaluated.output)["both"]["protocol_hash"] == protocol.hash
    assert sspa_train("report", out).code == 0


def test_a_trained_run_is_measured_by_other_rules(sspa_train: Command, trained_run: Path, rules: Path) -> None:
    plain, own = (
        json.loads(sspa_train("evaluate", trained_run, *words, "--json").output)["both"]
        for words in ((), ("--protocol", rules))
    )
    assert (plain["protocol"], own["protocol"], own["top_k"]) == ("custom", "mine", 2)
    assert own["mAP"] == plain["mAP"]
    # More is predicted from 0.3 on.
    assert own["at_threshold"]["OR"] >= plain["at_threshold"]["OR"]
    assert "0.3" in own["thresholds"]


def test_rules_for_other_data_are_refused(sspa_train: Command, trained_run: Path, rules: Path) -> None:
    rules.write_text("name: mine\nbased_on: pa100k\n")
    ended = sspa_train("evaluate", trained_run, "--protocol", rules)
    assert ended.code == 2
    assert "its images and labels are those of custom, not of mine" in ended.messages
    typo = sspa_train("evaluate", trained_run, "--protocol", "custon")
    assert typo.code == 2
    assert "did you mean custom?" in typo.messages
