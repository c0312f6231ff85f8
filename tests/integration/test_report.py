"""The report of a real run: its contents, and that it is one file that escapes every name."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from sspa.shared.errors import UserError
from sspa.shared.knowledge import read_knowledge
from sspa.shared.knowledge_format import read_table, write_knowledge
from sspa.stage2_training.config.resolving import resolve_config
from sspa.stage2_training.report.page import write_report
from sspa.stage2_training.runs.run_folder import RunFolder

from .conftest import Ended
from .tiny_run import LABELS, train_arguments


class Reader(HTMLParser):
    """Text, tags and URLs of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.ids = "", list[str](), list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value:
                self.addresses.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(trained_run: Path) -> str:
    return (trained_run / "report.html").read_text(encoding="utf-8")


def test_figures_are_those_of_the_run(trained_run: Path, page: str) -> None:
    result = RunFolder(trained_run).read_json("result.json")
    text = Reader(page).text
    for metrics in [*result["test"].values(), result["untrained_test"]["both"]]:
        assert f"{100 * metrics['mAP']:.2f}" in text
        assert f"{100 * metrics['at_threshold']['OF1']:.2f}" in text
    about = RunFolder(trained_run).read_json("run.json")
    for said in (about["protocol"]["hash"], about["knowledge"]["hash"][:16], about["data"]["note"]):
        assert said in text
    for branch in ("untrained", "region", "global", "knowledge", "prediction"):
        assert branch in text


def test_one_file_without_network_that_escapes_every_name(page: str) -> None:
    read = Reader(page)
    assert not {"b", "i", "red", "script", "iframe"} & set(read.tags)
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    assert not re.search(r"url\((?!#)", page)
    assert len(read.ids) == len(set(read.ids))
    for label in LABELS.labels:
        # In the table of knowledge and on a plot's axis, letter by letter.
        assert read.text.count(label.text) >= 3
        assert f"A square <i>of one colour</i>, {label.text}." in read.text


def test_twelve_images_each_with_a_map(page: str) -> None:
    drawn, _, rest = page.partition("predicted, but absent")
    assert drawn.count('alt="image ') == 12
    assert drawn.count('alt="where ') == 12
    assert rest


def test_images_that_are_gone_are_said_to_be(trained_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "nowhere")
    (folder / "config.json").write_text(json.dumps(config))
    text = Reader(write_report(RunFolder(folder), torch.device("cpu")).read_text(encoding="utf-8")).text
    assert "The images cannot be shown" in text
    assert "nowhere" in text


def test_descriptions_that_were_not_used_or_are_doubtful_say_so(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    record = folder.read_json("descriptions.json")
    label = LABELS.labels[0]
    (own,) = record["labels"][label.key]
    assert own == {"text": f"A square <i>of one colour</i>, {label.text}.", "weight": 1.0, "score": None}
    record["labels"][label.key] = [
        {"text": "Somehow dull.", "weight": 0.0, "score": 0.25},
        {"text": "Plainly itself.", "weight": 1.0, "score": 0.75},
    ]
    folder.write_json("descriptions.json", record)
    knowledge = folder.file("knowledge.parquet")
    rows = read_table(knowledge)[0].to_pylist()
    rows[1] |= {"verdict": "doubtful", "reason": "not visual"}
    knowledge.unlink()
    write_knowledge(knowledge, rows)

    text = Reader(write_report(folder, torch.device("cpu")).read_text(encoding="utf-8")).text

    assert text.index("Plainly itself. 75 %") < text.index("Somehow dull. 25 %, not used")
    assert f"{rows[1]['description']} doubtful: not visual" in text
    assert text.count("doubtful: ") == 1

    del record["labels"][label.key]
    folder.write_json("descriptions.json", record)
    with pytest.raises(UserError, match="has no descriptions of"):
        write_report(folder, torch.device("cpu"))


def test_the_command_in_the_report_repeats_the_configuration(trained_run: Path, page: str) -> None:
    again = re.search(r"<pre[^>]*>sspa-train run --config (\S+) --knowledge (\S+) --out NEW_FOLDER", page)
    assert again
    ours = RunFolder(trained_run).config()
    assert resolve_config([Path(again[1])], [], {"knowledge": ours.knowledge}) == ours
    assert read_knowledge(Path(again[2])).content_hash == read_knowledge(ours.knowledge).content_hash


def test_a_run_killed_after_its_result_gets_its_report_by_resume(
    sspa_train: Callable[..., Ended], squares: Path, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    shutil.copytree(trained_run, out)
    (out / "report.html").unlink()
    (out / "checkpoints" / "epoch-5-step-0").mkdir(parents=True)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    ended = sspa_train(*train_arguments(squares, out), "--resume")
    assert ended.code == 0, ended.messages
    assert "this run is finished; there is nothing to train" in ended.messages
    assert (out / "report.html").is_file()
    assert not (out / "checkpoints").exists()
    assert {name: (out / name).read_bytes() for name in before} == before
