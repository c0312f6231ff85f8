"""`sspa-train demo`: the page in a real Chromium, its answers compared with the Tagger's, and user errors."""

import io
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.pages.overlay import over_image

from .bombs import write_bomb
from .browser import PHONE, scrolls_sideways, visit
from .conftest import Ended
from .demo_server import served
from .tiny_run import LABELS

if TYPE_CHECKING:
    import torch
    from playwright.sync_api import Browser, Page

# Looked for and not imported: every worker of the tests would, which takes seconds.
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed (extra demo)")

Command = Callable[..., Ended]

TYPED = Label('red & "big" umbrella', 'red & "big" umbrella')
DESCRIPTION = "A red <b>umbrella</b> is a round cloth on a stick."
_UPLOAD = "#upload input[type=file]"
# Generous: what else a machine does must not fail a test.
_ANSWERS_WITHIN_MS = 120_000


@pytest.fixture(scope="module")
def address(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of the real command, on its default address, with small limits."""
    with served(trained_run, tmp_path_factory.mktemp("demo")) as (address, _):
        yield address


def _shown(page: "Page", place: str) -> dict[str, float]:
    """The labels in a list of the page, with their probabilities."""
    found = page.locator(f"{place} button.confidence-set")
    return {
        button.locator("dt").inner_text(): float(button.locator("meter").get_attribute("value") or "nan")
        for button in found.all()
    }


# Gradio's pop-up message can be clicked, and has a button.
_TOAST = ("nested-interactive",)


def _upload(page: "Page", image: Path) -> None:
    page.set_default_timeout(_ANSWERS_WITHIN_MS)
    page.wait_for_selector(_UPLOAD, state="attached")
    page.set_input_files(_UPLOAD, image)


def _type_a_new_label(page: "Page", tagger: Tagger, images: "torch.Tensor") -> None:
    """A label that the model has never seen is scored, rejected the second time, and removed."""
    page.fill("#name input, #name textarea", TYPED.text)
    page.fill("#description input, #description textarea", DESCRIPTION)
    page.click("#add")
    page.get_by_text(TYPED.text, exact=True).first.wait_for()
    wider = tagger.knowledge.with_labels({TYPED: DESCRIPTION})
    own = tagger.knowledge
    tagger.bind(wider)
    with_typed = tagger.probabilities(images)[0]
    tagger.bind(own)
    found = {**_shown(page, "#seen"), **_shown(page, "#others")}
    assert found == pytest.approx(dict(zip((*LABELS.texts, TYPED.text), with_typed, strict=True)), abs=1e-4)
    page.locator("#seen button, #others button").filter(has_text=TYPED.text).click()
    page.locator("#why").get_by_text(DESCRIPTION).wait_for()

    # The same name again is said to be there; the labels are gone when they are removed.
    page.fill("#name input, #name textarea", TYPED.text.upper())
    page.click("#add")
    page.locator("#message").get_by_text("exists already").wait_for()
    page.click("#clear")
    page.wait_for_function(
        "document.querySelectorAll('#seen button.confidence-set, #others button.confidence-set').length == 3"
    )


@pytest.mark.slow
def test_an_image_its_labels_their_threshold_a_map_and_a_new_label(
    browser: "Browser",
    address: str,
    squares: Path,
    tagger: Tagger,
) -> None:
    image = squares / "pictures" / "test0.png"
    images = tagger.prepare(image)[None]
    probabilities, maps = tagger.maps(images)
    by_text = dict(zip(LABELS.texts, probabilities[0].tolist(), strict=True))
    asked: list[str] = []
    with visit(browser, address) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        _upload(page, image)
        page.wait_for_selector("#seen button, #others button")

        # The probabilities are the Tagger's, on either side of 0.5.
        seen, others = _shown(page, "#seen"), _shown(page, "#others")
        assert {**seen, **others} == pytest.approx(by_text, abs=1e-4)
        assert set(seen) == {text for text, value in by_text.items() if value >= 0.5}

        # The threshold, and the tuned ones.
        number = page.locator("#threshold input[type=number]")
        number.fill("0")
        page.wait_for_function("document.querySelectorAll('#seen button.confidence-set').length == 3")
        number.fill("1")
        page.wait_for_function("document.querySelectorAll('#others button.confidence-set').length == 3")
        page.get_by_text("each label’s own, tuned").click()
        tuned = {label.text: tagger.tuned_thresholds()[label.key] for label in LABELS.labels}
        expected = {text for text, value in by_text.items() if value >= tuned[text]}
        page.wait_for_function(f"document.querySelectorAll('#seen button.confidence-set').length == {len(expected)}")
        assert set(_shown(page, "#seen")) == expected
        page.get_by_text("A label that you typed counts").wait_for()

        # A label's map over the image, and its description, as text and not as HTML.
        index = int(probabilities[0].argmax())
        page.get_by_text(LABELS.texts[index], exact=True).click()
        shown = page.wait_for_selector("#map img")
        assert shown is not None
        drawn = Image.open(io.BytesIO(page.request.get(shown.get_attribute("src") or "").body())).convert("RGB")
        assert maps is not None
        ours = over_image(Image.open(image), maps[0, index])
        # Images travel as WebP, hence not closer.
        assert np.abs(np.asarray(drawn, dtype=float) - np.asarray(ours, dtype=float)).mean() < 8
        why = page.inner_text("#why")
        assert f"A square <i>of one colour</i>, {LABELS.texts[index]}." in why
        by_name = tagger.by_name_only(images)
        assert by_name is not None
        assert f"it would be {100 * by_name[0, index]:.1f} %" in why

        _type_a_new_label(page, tagger, images)
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.mark.slow
def test_what_cannot_be_taken_is_said_on_the_page(
    browser: "Browser",
    address: str,
    squares: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "text.jpg").write_text("this is no image")
    Image.new("RGB", (300, 200)).save(tmp_path / "wide.png")
    write_bomb(tmp_path / "bomb.png")
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    messages = {
        "text.jpg": "text.jpg: not an image",
        "wide.png": "wide.png: 0.1 megapixels; 0.05 is the limit",
        "bomb.png": "bomb.png: too many pixels",
        "large.png": "exceed the maximum allowed size",
    }
    for name, message in messages.items():
        with visit(browser, address, theirs=_TOAST) as page:
            _upload(page, tmp_path / name)
            said = page.get_by_text(message)
            said.wait_for()
            # The place on the server is nobody's business.
            assert "/" not in said.inner_text()
            assert page.locator("#seen button.confidence-set").count() == 0
            # A good image after a bad one.
            if name == "text.jpg":
                page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
                _upload(page, squares / "pictures" / "test0.png")
                page.wait_for_selector("#seen button, #others button")
                assert page.inner_text("#message").strip() == ""


@pytest.mark.slow
def test_nothing_scrolls_sideways_on_a_phone(
    browser: "Browser",
    address: str,
    squares: Path,
) -> None:
    with visit(browser, address, viewport=PHONE) as page:
        _upload(page, squares / "pictures" / "test0.png")
        page.wait_for_selector("#seen button, #others button")
        page.locator("#seen button, #others button").first.click()
        page.wait_for_selector("#map img")
        assert not scrolls_sideways(page)


@pytest.mark.slow
def test_only_this_machine_reaches_it_by_default(address: str) -> None:
    port = int(address.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), 5):
        pass
    # Another loopback address answers only where every address is listened on.
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), 5)


def test_another_address_is_warned_about(
    trained_run: Path, tagger: Tagger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sspa.stage2_training.demo import server
    from sspa.stage2_training.demo.scoring import Limits

    monkeypatch.setattr(server, "serve_until_interrupted", lambda app, listening, host: None)
    for host, warned in (("127.0.0.1", False), ("0.0.0.0", True)):
        server.serve(lambda: tagger, 0.5, Limits(1, 1), host, 0)
        assert ("everyone who reaches" in capsys.readouterr().err) == warned


def test_a_head_of_fixed_labels_says_that_it_takes_no_new_ones(trained_run: Path, tagger: Tagger) -> None:
    import json

    from sspa.stage2_training.demo.page import build_page
    from sspa.stage2_training.demo.scoring import Limits, Scorer

    class Closed(Scorer):
        takes_new_labels = False

    for kind, said in ((Scorer, "Type a label"), (Closed, "new ones cannot be typed")):
        shown = json.dumps(build_page(kind(tagger, Limits(1, 1)), 0.5).get_config_file(), default=str)
        assert (said in shown, "Type a label" in shown) == (True, kind is Scorer)


def test_many_descriptions_are_folded_away(tagger: Tagger, squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sspa.stage2_training.demo.page import _reasons
    from sspa.stage2_training.demo.scoring import Limits, Scorer

    scorer, image = Scorer(tagger, Limits(1, 1)), squares / "pictures" / "test1.png"
    for count in (3, 5):
        monkeypatch.setattr(scorer, "descriptions", lambda *_, count=count: [f"No. <{n}>" for n in range(count)])
        said = _reasons(scorer, image, scorer.score(image, {}), {}, 0)[1]
        assert said.count("<p>“No. &lt;") == count
        assert ("2 more descriptions" in said) is (count == 5)
        assert said.index("&lt;2&gt;") < said.find("<details>") % len(said)


def test_two_visitors_with_labels_of_their_own(tagger: Tagger, squares: Path) -> None:
    from sspa.stage2_training.demo.scoring import Limits, Scorer, with_typed

    scorer = Scorer(tagger, Limits(1, 1))
    image = squares / "pictures" / "test1.png"
    one = with_typed(with_typed({}, "kite", ""), "  a   drum ", "A drum is  round.")
    other = dict(reversed(one.items()))
    first, second = scorer.score(image, one), scorer.score(image, other)
    assert [label.text for label in first.labels[3:]] == ["kite", "a drum"]
    by_key = [
        dict(zip((label.key for label in found.labels), found.probabilities.tolist(), strict=True))
        for found in (first, second)
    ]
    assert by_key[0] == pytest.approx(by_key[1], abs=1e-5)
    assert scorer.descriptions("a drum", one) == ("A drum is round.",)
    assert scorer.descriptions("kite", one) == ()
    # Nobody else's labels are left behind.
    assert [label.key for label in scorer.score(image, {}).labels] == list(LABELS.keys)


@pytest.mark.parametrize(
    ("name", "description", "message"),
    [
        (" ", "", "type a label first"),
        ("a{{b}}", "", "template or chat syntax"),
        ("<>", "", "template or chat syntax only"),
        ("drum", "x" * 501, "501 characters; 500 is the limit"),
    ],
)
def test_what_is_no_label(name: str, description: str, message: str) -> None:
    from sspa.stage2_training.demo.scoring import with_typed

    with pytest.raises(UserError, match=message):
        with_typed({}, name, description)


def test_the_server_gives_nothing_away(address: str, trained_run: Path, squares: Path) -> None:
    """What once read any image on the server, told which paths exist, and answered other sites."""
    import httpx

    def join(path: Path, number: int = 0, **headers: str) -> httpx.Response:
        data = [{"path": str(path), "meta": {"_type": "gradio.FileData"}}, None, "one", 0.5]
        call = {"data": data, "fn_index": number, "session_hash": "abc"}
        return httpx.post(f"{address}/gradio_api/queue/join", json=call, headers=headers)

    for number in range(3):
        answers = [join(path, number) for path in (squares / "pictures" / "test0.png", squares / "absent.png")]
        assert [answer.status_code for answer in answers] == [403, 403]
        assert answers[0].text == answers[1].text
    assert join(squares, 99).status_code == 404
    assert join(squares, host="evil.example").status_code == 403
    assert httpx.get(f"{address}/", headers={"host": "evil.example"}).status_code == 403
    upload = {"files": ("a.png", b"x")}
    for headers, status in (({"origin": "http://evil.example"}, 403), ({"origin": address}, 200)):
        found = httpx.post(f"{address}/gradio_api/upload", files=upload, headers=headers)
        assert found.status_code == status
    large = httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.png", b"x" * 1_000_000)})
    assert large.status_code == 413
    for place in (
        "/openapi.json",
        "/docs",
        "/gradio_api/info",
        "/gradio_api/run/upload",
        f"/gradio_api/file={trained_run}",
    ):
        assert httpx.get(address + place).status_code == 404


def test_wrong_use_is_one_line(
    sspa_train: Command, trained_run: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where no killed server has left uploads, whose deletion would be said.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def error_of(*arguments: str | Path) -> str:
        ended = sspa_train("demo", *arguments)
        assert ended.code == 2
        (line,) = ended.messages.splitlines()
        return line

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--port {port}: cannot be listened on (Address already in use)" in error_of(trained_run, "--port", port)
    assert "is not a run folder" in error_of(squares, "--port", "0")
    assert "there is no such address" in error_of(trained_run, "--port", "0", "--host", "no such host")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "install sspa with the extra 'demo'" in error_of(trained_run, "--port", "0")
