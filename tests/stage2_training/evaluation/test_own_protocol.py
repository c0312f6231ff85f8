"""Protocols of one's own: what a file may say, and what its hash tells apart."""

from pathlib import Path

import numpy as np
import pytest

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.dataset import load_manifest
from sspa.stage2_training.data.manifest import Manifest, read_manifest, write_manifest
from sspa.stage2_training.evaluation.metrics import evaluate_scores
from sspa.stage2_training.evaluation.own_protocol import find_protocol
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.runs.records import ProtocolRecord


def written(folder: Path, text: str, name: str = "own.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_what_is_not_said_is_as_in_the_built_in_protocol(tmp_path: Path) -> None:
    own = find_protocol(written(tmp_path, "name: eleven\nbased_on: voc2007-dualcoop\nthreshold: 0.3\n"))
    base = get_protocol("voc2007-dualcoop")
    assert (own.name, own.threshold, own.built_in) == ("eleven", 0.3, "voc2007-dualcoop")
    assert (own.dataset, own.splits, own.difficult, own.headline) == (
        base.dataset,
        base.splits,
        base.difficult,
        base.headline,
    )


def test_the_hash_covers_every_rule_and_the_built_in_ones_keep_theirs(tmp_path: Path) -> None:
    texts = ["name: a\n", "name: b\n", "name: a\nthreshold: 0.4\n", "name: a\ntop_k: 5\n", "name: a\nsource: us\n"]
    texts += ["name: a\nheadline: [OF1]\n", "name: a\nbased_on: ucm-80-20\n", "name: a\naverage_precision: 11-point\n"]
    assert len({find_protocol(written(tmp_path, text)).hash for text in texts}) == len(texts)
    # In results that people have.
    assert get_protocol("voc2007-ignore-difficult").hash == "1e5d6e4dc04a"
    assert get_protocol("custom").hash == "f34c19ccef63"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: a\ntreshold: 0.3\n", "own.yaml: no protocol has the key 'treshold'; did you mean threshold?"),
        ("name: a\nthreshold: 3\n", "own.yaml: is not a protocol (threshold: Input should be less than 1)"),
        ("threshold: 0.3\n", "own.yaml: is not a protocol (name: Field required)"),
        ("name: custom\n", "own.yaml: name: custom is a built-in protocol; give yours another name"),
        ("name: my rules\n", "own.yaml: name: 'my rules' is printed with results"),
        ("name: a\nbased_on: voc2007\n", "own.yaml: based_on: there is no built-in protocol 'voc2007'"),
        ("name: a\nbased_on: ucm-80-20\ndifficult: positive\n", "own.yaml: difficult: only VOC marks objects"),
        ("name: a\nheadline: [mAP, CF1@3]\ntop_k: 5\n", "headline: there is no figure 'CF1@3'; did you mean CF1@5?"),
        ("name: a\nname: b\n", "own.yaml: cannot be read as YAML ('name' is given twice"),
        ("- a\n", "own.yaml: holds no keys"),
        ("", "own.yaml: holds no keys"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        find_protocol(written(tmp_path, text))
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_file_is_a_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no protocol 'custm'; did you mean custom.*your own is a YAML file"):
        find_protocol("custm")
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read \(No such file"):
        find_protocol(str(tmp_path / "none.yaml"))


def test_its_rules_are_what_is_measured(tmp_path: Path) -> None:
    own = find_protocol(written(tmp_path, "name: two\nthreshold: 0.3\ntop_k: 1\nheadline: [OF1, 'OF1@1']\n"))
    scores = np.array([[0.4, 0.35], [0.2, 0.9]], np.float32)
    targets = np.array([[1, 0], [0, 1]], np.int8)
    figures = evaluate_scores(scores, targets, ["a", "b"], own)
    # At 0.3 three cells are predicted, two of them rightly; the top one of each image is right.
    assert figures.figure("OF1") == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert figures.figure("OF1@1") == 1.0
    assert (figures.protocol, figures.protocol_hash) == ("two", own.hash)


def manifest() -> Manifest:
    names = Texts(("a.jpg", "b.jpg"))
    targets = np.array([[1, 0], [0, 1]], np.int8)
    labels = LabelSet("two", (Label("cat", "cat"), Label("dog", "dog")))
    return Manifest("pets", labels, get_protocol("custom"), "", names, names, Texts(("train", "test")), targets)


def test_a_manifest_carries_its_rules_to_where_the_file_is_not(tmp_path: Path) -> None:
    file = written(tmp_path, "name: mine\ntop_k: 5\n")
    write_manifest(manifest(), tmp_path / "plain.parquet")
    own, _ = load_manifest(str(tmp_path / "plain.parquet"), tmp_path, file)
    write_manifest(own, tmp_path / "own.parquet")
    Path(file).unlink()
    again = read_manifest(tmp_path / "own.parquet")
    assert again.protocol == own.protocol
    assert again.protocol.top_k == 5
    assert read_manifest(tmp_path / "plain.parquet").protocol == get_protocol("custom")


def test_rules_that_would_mark_images_otherwise_need_the_data_set(tmp_path: Path) -> None:
    write_manifest(manifest(), tmp_path / "m.parquet")
    drops = written(tmp_path, "name: drops\nunlabelled_images: drop\n")
    with pytest.raises(UserError, match="are those of custom, not of drops; prepare it again with --protocol"):
        load_manifest(str(tmp_path / "m.parquet"), tmp_path, drops)
    with pytest.raises(UserError, match="are those of custom, not of pa100k"):
        load_manifest(str(tmp_path / "m.parquet"), tmp_path, "pa100k")


def test_a_run_keeps_rules_of_ones_own_and_the_names_of_others(tmp_path: Path) -> None:
    own = find_protocol(written(tmp_path, "name: mine\ntop_k: 5\n"))
    for protocol in (own, get_protocol("ucm-80-20")):
        record = ProtocolRecord.model_validate_json(ProtocolRecord.of(protocol).model_dump_json())
        assert (record.rules(), record.hash) == (protocol, protocol.hash)
    assert ProtocolRecord.of(get_protocol("ucm-80-20")).own is None
