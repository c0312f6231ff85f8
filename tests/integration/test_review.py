"""`sspa-train review` as a person uses it: a real server, a real browser, and what comes of the answers."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from sspa.shared.knowledge import read_knowledge
from sspa.stage2_training.cli.options import FAST_MODEL
from sspa.stage2_training.data.dataset import load_dataset
from sspa.stage2_training.data.image_files import find_photos
from sspa.stage2_training.data.manifest import Manifest, read_manifest, write_manifest
from sspa.stage2_training.data.reviewed.answers import Answers, read_answers
from sspa.stage2_training.data.reviewed.applied import reviewed_manifest
from sspa.stage2_training.data.reviewed.entries import Answer
from sspa.stage2_training.features.kept_features import FeatureCache
from sspa.stage2_training.review.command import review_config
from sspa.stage2_training.review.learning import Learner

from .browser import PHONE, scrolls_sideways, visit
from .conftest import Ended
from .page_server import serving
from .tiny_run import COLOURS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Command = Callable[..., Ended]
Arguments = list[str | Path]


def arguments(squares: Path, out: Path, *more: str | Path) -> Arguments:
    knowledge, backbone = squares / "knowledge.parquet", f"backbone.name=local-dir:{squares / 'backbone'}"
    root = squares / "pictures"
    start: Arguments = ["review", "--root", root, "--out", out, "--knowledge", knowledge, "--set", backbone]
    return [*start, "--by", "tester", "--port", "0", *more]


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def marks_of(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Each picture's marks by label key, by the picture's path."""
    rows = zip(manifest.paths, manifest.targets.tolist(), strict=True)
    return {path: dict(zip(manifest.labels.keys, row, strict=True)) for path, row in rows}


def answer_by_keyboard(page: "Page", truth: dict[str, dict[str, int]]) -> str:
    """Set the photo's labels as they are, with keys alone, and confirm; returns its name."""
    name = re.sub(r" \(.*", "", page.inner_text("#name"))
    for place, button in enumerate(page.query_selector_all("#labels button")):
        is_on = button.get_attribute("aria-pressed") == "true"
        text = button.query_selector(".text")
        assert text is not None
        key = f"square{list(COLOURS).index(text.inner_text())}"
        if is_on != (truth[name][key] == 1):
            page.keyboard.press("1234567890"[place])
    page.keyboard.press("Enter")
    page.wait_for_function("name => !document.getElementById('name').textContent.startsWith(name)", arg=name)
    return name


@pytest.mark.slow
def test_photos_reviewed_by_keyboard_through_a_kill_are_kept_once_each(
    browser: "Browser", squares: Path, tmp_path: Path, sspa_train: Command
) -> None:
    out = tmp_path / "mine.review.jsonl"
    truth = marks_of(read_manifest(squares / "squares.parquet"))
    with serving(arguments(squares, out), tmp_path) as (address, server):
        port = address.rpartition(":")[2]
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("#labels button")
        answered = [answer_by_keyboard(page, truth) for _ in range(25)]
        page.wait_for_function("() => document.getElementById('progress').textContent.startsWith('25 of 144')")
        server.send_signal(signal.SIGKILL)
        server.wait(30)
        # The page is still there, and goes on with what it holds already.
        answered.append(answer_by_keyboard(page, truth))
        # What is asked in the background may fail first, and says the same without the count.
        page.wait_for_function("() => document.getElementById('message').textContent.includes('1 not kept yet')")
        assert "start it again" in page.inner_text("#message")
        again = arguments(squares, out)
        again[again.index("0")] = port
        with serving(again, tmp_path):
            page.wait_for_selector("#message", state="hidden", timeout=60_000)
            answered += [answer_by_keyboard(page, truth) for _ in range(24)]
            page.wait_for_function("() => document.getElementById('progress').textContent.startsWith('50 of 144')")
        context.close()
    entries = lines_of(out)
    answers = [entry for entry in entries if "marks" in entry]
    assert [entry["path"] for entry in answers] == answered
    assert len(set(answered)) == 50
    for entry in answers:
        assert entry["marks"] == truth[entry["path"]]
        assert entry["by"] == "tester"
        # The first may have been asked about before the model had read the photos.
        if entry["suggested"] or entry["chosen"] != "random":
            assert entry["suggested"].keys() == entry["marks"].keys()
    assert answers[-1]["suggested"]
    assert sum(entry["chosen"] == "random" for entry in answers) >= 4
    # And a model comes of it.
    manifest = tmp_path / "m.parquet"
    prepare: Arguments = ["data", "prepare", "custom", "--review", out, "--root", squares / "pictures"]
    ended = sspa_train(*prepare, "--output", manifest)
    assert ended.code == 0, ended.messages
    assert marks_of(read_manifest(manifest)) == {path: truth[path] for path in answered}
    assert ended.messages.rstrip().endswith("--preset embedded-photos-few")
    ended = sspa_train(*prepare, "--unanswered", "--output", tmp_path / "all.parquet")
    assert ended.code == 0, ended.messages
    whole = read_manifest(tmp_path / "all.parquet")
    assert sorted(whole.paths) == sorted(truth)
    assert (whole.targets < 0).all(axis=1).sum() == 144 - 50
    # The others are not four times as many as the answers in train.
    assert ended.messages.rstrip().endswith("--preset embedded-photos-few")
    ended = sspa_train("data", "prepare", "custom", "--unanswered", "--root", squares / "pictures")
    assert (ended.code, "--unanswered: is for custom data" in ended.messages) == (2, True)


@pytest.fixture(scope="module")
def served(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A page's address and its file."""
    folder = tmp_path_factory.mktemp("review")
    with serving(arguments(squares, folder / "mine.review.jsonl"), folder) as (address, _):
        yield address, folder / "mine.review.jsonl"


@pytest.mark.slow
def test_the_page_on_a_phone_and_in_the_dark(browser: "Browser", served: tuple[str, Path]) -> None:
    address, out = served
    before = read_answers(out).standing.keys()
    with httpx.Client(base_url=address) as client:
        _until_read(client)  # else there are no maps
    for options in ({"viewport": PHONE}, {"viewport": PHONE, "color_scheme": "dark"}, {}):
        with visit(browser, address, **options) as page:
            page.wait_for_selector("#labels button")
            assert not scrolls_sideways(page)
            _one_of_each(page)
    entries = lines_of(out)
    assert sum("undo" in entry for entry in entries) == 3
    standing = [answer for key, answer in read_answers(out).standing.items() if key not in before]
    # Of each visit: a grid of twelve, and two photos of which one was taken back.
    assert sum(answer.chosen == "grid" for answer in standing) == 36
    assert sum(answer.chosen != "grid" for answer in standing) == 3
    assert all(-1 in answer.marks.values() for answer in standing if answer.chosen != "grid")


def _one_of_each(page: "Page") -> None:
    page.keyboard.press("u")
    page.keyboard.press("Enter")
    skipped = page.inner_text("#name")
    page.keyboard.press("s")
    assert page.inner_text("#name") != skipped
    taken_back = page.inner_text("#name")
    page.keyboard.press("Enter")
    page.keyboard.press("Backspace")
    page.wait_for_function("name => document.getElementById('name').textContent === name", arg=taken_back)
    page.keyboard.press("/")
    page.keyboard.type("$GR")
    page.keyboard.press("Enter")
    assert page.locator("#labels button").count() == len(COLOURS)
    assert page.locator("#labels button.cursor .text").inner_text() == list(COLOURS)[1]
    page.keyboard.press("m")
    page.wait_for_selector("#photo img[alt^='where']")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.locator("#help button").click()
    page.select_option("#mode", "0")
    page.wait_for_selector(".tile:nth-child(1)")
    page.wait_for_function("() => document.querySelectorAll('.tile').length === 12")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.getElementById('progress').textContent.startsWith('0 answers')")
    page.keyboard.press("p")
    page.wait_for_selector("#labels button")
    page.wait_for_timeout(500)


@pytest.mark.slow
def test_the_server_answers_its_own_page_alone(served: tuple[str, Path]) -> None:
    address, out = served
    before = len(lines_of(out))
    with httpx.Client(base_url=address) as client:
        assert client.get("/state").status_code == 200
        policy = client.get("/").headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert client.get("/state", headers={"host": "evil.example"}).status_code == 403
        sent = {"answers": [{"id": "12345678", "path": "test0.png", "marks": {"square0": 1}, "chosen": "useful"}]}
        assert client.post("/answers", json=sent, headers={"origin": "http://evil.example"}).status_code == 403
        for path in (
            "/photo/144",
            "/photo/x",
            "/photo/-1",
            "/../pyproject.toml",
            "/map/0/99",
            "/grid?label=99",
            "/docs",
        ):
            assert client.get(path).status_code == 404, path
        for body in ("", "{", "[]", '{"answers": [{}]}', '{"answers": 3}', '{"answers": [{"path": 1}]}'):
            assert client.post("/answers", content=body).status_code == 400, body
        assert client.post("/answers", content=b"x" * ((1 << 20) + 1)).status_code == 413
        assert client.post("/answers", json=sent | {"more": 1}).status_code == 400
        unknown = {"answers": [sent["answers"][0] | {"marks": {"nothing": 1}}]}
        assert "no label of this review" in client.post("/answers", json=unknown).text
        assert len(lines_of(out)) == before
        assert client.post("/answers", json=sent).status_code == 200
        assert client.post("/answers", json=sent).status_code == 200
        assert len(lines_of(out)) == before + 1
        assert client.get("/photo/0?longest=64").status_code == 404  # a page of other photos
        photo = client.get(
            "/photo/0", params={"longest": 64, "of": client.get("/state").json()["progress"]["identity"]}
        )
        assert photo.headers["content-type"] == "image/jpeg"


def test_mistakes_are_named_before_anything_is_computed(sspa_train: Command, squares: Path, tmp_path: Path) -> None:
    out, root = tmp_path / "a.jsonl", squares / "pictures"
    cases: list[tuple[Arguments, str]] = [
        ([], "give your labels"),
        (["cat,dog", "--suspects", "x"], "--suspects is for --check"),
        (["cat,dog", "--check", "nothing.parquet"], "there is no such manifest"),
        (["nothing.txt"], "there is no such file"),
    ]
    for more, said in cases:
        ended = sspa_train("review", *more, "--root", root, "--out", out)
        assert ended.code == 2, ended.messages
        assert said in ended.messages
        assert not out.exists()
    ended = sspa_train("review", "cat,dog", "--root", tmp_path, "--out", out)
    assert "has no images" in ended.messages
    ended = sspa_train("review", "cat,dog", "--root", root, "--out", tmp_path / "mine.review.parquet")
    assert "take " in ended.messages
    assert "mine.review.jsonl" in ended.messages


@pytest.mark.slow
def test_given_labels_are_checked_the_doubtful_ones_first(
    squares: Path, trained_run: Path, tmp_path: Path, sspa_train: Command
) -> None:
    """Marks that are planted wrongly come first, are shown as they are given, and are corrected in the manifest."""
    right = read_manifest(squares / "squares.parquet")
    targets = right.targets.copy()
    wrong = [3, 40, 77]
    targets[wrong] = 1 - targets[wrong]
    write_manifest(replace(right, targets=targets), tmp_path / "wrong.parquet")
    out = tmp_path / "mine.review.jsonl"
    start: Arguments = ["review", trained_run, "--root", squares / "pictures", "--out", out, "--port", "0"]
    tags = tmp_path / "tags.parquet"
    with (
        serving([*start, "--check", tmp_path / "wrong.parquet", "--tags", tags], tmp_path) as (address, server),
        httpx.Client(base_url=address) as client,
    ):
        _until_read(client)
        asked = client.get("/next?count=3").json()["asked"]
        assert {one["name"] for one in asked} == {right.paths[row] for row in wrong}
        for one in asked:
            row = list(right.paths).index(one["name"])
            keys = right.labels.keys
            assert one["marks"] == dict(zip(keys, targets[row].tolist(), strict=True))
            marks = dict(zip(keys, right.targets[row].tolist(), strict=True))
            answer = {"id": f"answer-{row}", "path": one["name"], "marks": marks, "chosen": one["chosen"]}
            assert client.post("/answers", json={"answers": [answer]}).status_code == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(120) == 0
    assert pq.read_metadata(tags).num_rows == 144 * 3
    prepare: Arguments = [
        "data",
        "prepare",
        tmp_path / "wrong.parquet",
        "--review",
        out,
        "--root",
        squares / "pictures",
    ]
    ended = sspa_train(*prepare, "--output", tmp_path / "corrected.parquet")
    assert ended.code == 0, ended.messages
    assert "9 marks of 3 images were corrected" in ended.messages
    assert (read_manifest(tmp_path / "corrected.parquet").targets == right.targets).all()


def _until_read(client: httpx.Client) -> None:
    """Wait until the model has read the photos; before, the page asks in random order."""
    for _ in range(600):
        if client.get("/state").json()["progress"]["photos_read"] is None:
            return
        time.sleep(0.1)
    raise AssertionError("the photos were not read within a minute")


def test_the_model_learns_from_answers_and_from_what_it_is_sure_of(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path))
    manifest = read_manifest(squares / "squares.parquet")
    settings = [f"backbone.name=local-dir:{squares / 'backbone'}", "model.width=32", "loss.kind=bce"]
    config = review_config(squares / "knowledge.parquet", "natural", [], [*FAST_MODEL, *settings], ())
    knowledge = read_knowledge(squares / "knowledge.parquet").for_labels(manifest.labels.keys)
    learner = Learner(config, knowledge, squares / "pictures", list(manifest.paths), torch.device("cpu"))
    assert not learner.knows_photos()
    learner.read_photos()
    assert learner.knows_photos()
    rows = np.arange(0, 144, 3)
    others = np.setdiff1d(np.arange(144), rows)
    targets = manifest.targets[rows].copy()
    targets[0, 0] = -1

    def surprise() -> float:
        """Of the model about the answers, in bits a mark; for other pictures so random a tower is no use."""
        shown, known = learner.probabilities()[rows].astype(float), targets >= 0
        return float(-np.log2(np.where(targets == 1, shown, 1 - shown)[known]).mean())

    untrained, random = surprise(), torch.get_rng_state()
    before = learner.probabilities()
    assert not learner.learn(rows, targets, iter([True, True, False]).__next__)
    assert (learner.probabilities() == before).all()
    assert learner.learn(rows, targets, lambda: True)
    learned, first = surprise(), learner.probabilities()
    assert learned < untrained - 0.05
    # The same answers give the same model, whatever was learned before.
    assert learner.learn(rows, targets, lambda: True)
    assert (learner.probabilities() == first).all()
    assert learner.teach_itself(rows, targets, others, lambda: True)
    assert surprise() < untrained - 0.05
    assert (learner.probabilities() != first).any()
    assert not learner.teach_itself(rows, targets, others[:0], lambda: True)
    assert (torch.get_rng_state() == random).all()


def test_what_the_review_has_read_a_run_does_not_read_again(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path))
    root, file = squares / "pictures", tmp_path / "mine.parquet"
    settings = [f"backbone.name=local-dir:{squares / 'backbone'}", "model.width=32", "training.views=[plain]"]
    config = review_config(squares / "knowledge.parquet", "natural", [], [*FAST_MODEL, *settings], ())
    of_squares = read_manifest(squares / "squares.parquet")
    knowledge = read_knowledge(squares / "knowledge.parquet").for_labels(of_squares.labels.keys)
    learner = Learner(config, knowledge, root, find_photos(root), torch.device("cpu"))
    learner.read_photos()
    answers = Answers(of_squares.labels.labels)
    for path, marks in list(zip(of_squares.paths, of_squares.targets.tolist(), strict=True))[:40]:
        answers.add(Answer(path=path, marks=dict(zip(of_squares.labels.keys, marks, strict=True))))
    write_manifest(reviewed_manifest(answers, file, root, None, 0.1, 0.2, 0, unanswered=True), file)
    dataset = load_dataset(str(file), root)
    backbone = learner.recognizer().backbone
    cache, train = FeatureCache(backbone, torch.device("cpu"), 0), dataset.split("train")
    capfd.readouterr()
    # Those that were not answered, and most of the 40 that were.
    assert 104 + 20 < len(train) < 144
    (kept,) = cache.kept([train], "plain")
    assert "keeping the frozen tower's features" not in capfd.readouterr().err
    alone = FeatureCache(backbone, torch.device("cpu"), 0).kept([replace(train, within=())], "plain")[0]
    rows = np.arange(len(train))
    assert (kept.take(rows).regions == alone.take(rows).regions).all()
