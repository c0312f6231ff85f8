"""A trained run in Python: any form of image, other labels, nothing left behind."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.knowledge import names_only
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.inference.loading import load_recognizer
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions

from .conftest import Ended
from .tiny_run import LABELS

Command = Callable[..., Ended]


def test_training_helped_and_the_tagger_gives_the_evaluated_probabilities(
    trained_run: Path, squares: Path, tagger: Tagger
) -> None:
    folder = RunFolder(trained_run)
    result = folder.result()
    assert result.test["both"].mAP > result.untrained_test["both"].mAP + 0.1
    evaluated, _ = read_predictions(folder)
    paths = [squares / "pictures" / f"{key}.png" for key in folder.test_ids()]
    tagged = tagger(paths, batch_size=7)
    ours = [[tags.probabilities[label.key] for label in LABELS.labels] for tags in tagged]
    # The kept features are float16, hence not closer.
    np.testing.assert_allclose(ours, evaluated["both"], atol=2e-3)


def test_loading_leaves_no_trace_in_the_process(trained_run: Path) -> None:
    def state() -> tuple[object, ...]:
        flags = (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.is_grad_enabled())
        generators = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())
        return (*flags, torch.backends.mha.get_fastpath_enabled(), *generators)

    torch.manual_seed(11)
    before = state()
    Tagger.load(trained_run, device="cpu")
    assert state() == before


def test_precision_is_what_was_asked_for_however_the_run_was_trained(trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    config = json.loads((run / "config.json").read_text())
    config["training"]["precision"] = "bf16"
    (run / "config.json").write_text(json.dumps(config))
    exact, fast = (Tagger.load(run, device="cpu", precision=precision) for precision in ("auto", "bf16"))
    assert (exact.precision, fast.precision) == ("float32", "bf16")
    own, _, _ = load_recognizer(RunFolder(run), torch.device("cpu"))
    assert own.backbone.precision == "bf16"  # as the run scored itself
    fingerprints = {tagger.recognizer.backbone.fingerprint for tagger in (exact, fast)}
    assert len(fingerprints) == 2
    assert own.backbone.fingerprint in fingerprints
    images = torch.rand(2, 3, *exact.recognizer.backbone.image_size)
    assert np.array_equal(exact.probabilities(images), Tagger.load(trained_run, device="cpu").probabilities(images))
    assert not np.array_equal(exact.probabilities(images), fast.probabilities(images))


def test_any_form_of_image_gives_the_same_tags(squares: Path, tagger: Tagger) -> None:
    path = squares / "pictures" / "test0.png"
    image = Image.open(path)
    (one,) = tagger(path)
    for tags in tagger([str(path), image, np.asarray(image), image.convert("RGBA")]):
        assert tags.probabilities == pytest.approx(one.probabilities, abs=1e-5)
    assert list(one.probabilities.values()) == sorted(one.probabilities.values(), reverse=True)
    assert set(one.predicted) == {key for key, value in one.probabilities.items() if value >= 0.5}
    with pytest.raises(UserError, match="float64 and shape"):
        tagger(np.zeros((4, 4, 3)))


def test_an_image_lying_on_its_side_is_turned(squares: Path, tagger: Tagger, tmp_path: Path) -> None:
    image = Image.open(squares / "pictures" / "test1.png")
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to show it"
    turned.save(tmp_path / "turned.png", exif=exif)
    upright, shown, opened = tagger([image, tmp_path / "turned.png", Image.open(tmp_path / "turned.png")])
    assert shown.probabilities == pytest.approx(upright.probabilities, abs=1e-5)
    assert opened.probabilities == pytest.approx(upright.probabilities, abs=1e-5)


def test_labels_it_never_saw(trained_run: Path, squares: Path, tagger: Tagger) -> None:
    path = squares / "pictures" / "test0.png"
    labels = (Label("umbrella", "red umbrella"), *LABELS.labels)
    wider = Tagger.load(trained_run, device="cpu", knowledge=names_only(LabelSet("wider", labels)))
    assert set(wider([path])[0].probabilities) == {label.key for label in labels}
    with pytest.raises(UserError, match="no tuned threshold for 'umbrella'"):
        Tagger.load(trained_run, device="cpu", knowledge=names_only(LabelSet("wider", labels)), threshold=None)
    tuned = Tagger.load(trained_run, device="cpu", threshold=None)
    assert (
        dict(zip((label.key for label in tuned.labels), tuned.thresholds, strict=True))
        == (RunFolder(trained_run).read_json("thresholds.json")["values"])
    )


def test_other_labels_from_now_on(trained_run: Path, squares: Path) -> None:
    path = squares / "pictures" / "test0.png"
    tagger = Tagger.load(trained_run, device="cpu", threshold=0.0)
    own = tagger.knowledge
    tagger.bind(own.with_labels({Label("umbrella", "red umbrella"): "", Label("kite", "kite"): "A kite flies."}))
    (tags,) = tagger(path)
    assert set(tags.predicted) == {*(label.key for label in LABELS.labels), "umbrella", "kite"}
    with pytest.raises(UserError, match="'UMBRELLA' exists already, as 'umbrella'"):
        tagger.knowledge.with_labels({Label("UMBRELLA", "umbrella"): ""})

    # What the tower cannot hold leaves everything as it was.
    (before,) = tagger(path)
    with pytest.raises(UserError, match="do not fit the text tower"):
        tagger.bind(own.with_labels({Label("long", "word " * 100): ""}))
    assert tagger(path)[0].probabilities == pytest.approx(before.probabilities, abs=1e-6)

    # Tuned thresholds go with the labels.
    tuned = Tagger.load(trained_run, device="cpu", threshold=None)
    with pytest.raises(UserError, match="no tuned threshold for 'kite'"):
        tuned.bind(own.with_labels({Label("kite", "kite"): ""}))
    one = LABELS.keys[2]
    tuned.bind(own.for_labels([one]))
    assert tuned.thresholds.tolist() == [tuned.tuned_thresholds()[one]]


def test_a_probability_without_the_sentences(trained_run: Path, squares: Path, tagger: Tagger) -> None:
    images = tagger.prepare(squares / "pictures" / "test0.png")[None]
    with_descriptions = tagger.probabilities(images)
    bare = Tagger.load(trained_run, device="cpu", knowledge=names_only(LABELS)).probabilities(images)
    np.testing.assert_allclose(tagger.by_name_only(images), bare, atol=1e-6)
    np.testing.assert_allclose(tagger.probabilities(images), with_descriptions, atol=1e-6)
    assert np.abs(bare - with_descriptions).max() > 1e-3
