"""A real Chromium for testing pages: the fixture `browser` (exposed by conftest.py), and `visit`.

Debian's chromium is used (`apt-get install chromium`); where none is installed the tests that ask for it are skipped.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

PHONE = {"width": 390, "height": 844}
# At most, until the page is at rest.
_LOOKS = 20
DESKTOP = {"width": 1280, "height": 900}

# --no-sandbox: tests run as root in containers. The rest keeps it from calling home. Playwright gives each start
# a new, empty user-data-dir.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium for the tests of a file.

    No longer, since while Playwright runs its event loop counts as running, and `asyncio.run` fails in other tests.
    """
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=program, headless=True, args=list(_FLAGS))
        yield launched
        launched.close()


@contextmanager
def visit(browser: "Browser", address: str, *, theirs: tuple[str, ...] = (), **options: Any) -> Iterator["Page"]:
    """The page at `address`, open in a context of its own; afterwards no error may have come up.

    Args:
        address: http:// or file://.
        theirs: axe's rules that a library's own part of the page does not keep; otherwise it has to find nothing
            serious in the page, as it is in the end.
        options: of the context: viewport=PHONE, color_scheme="dark", java_script_enabled=False, ...

    Raises:
        AssertionError: the console showed an error, a script failed, a request did, or people with a screen reader,
            a keyboard or weak eyes cannot use it.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.extend(_failure(request)))
    try:
        page.goto(address)
        yield page
        assert not problems, problems
        for _ in range(_LOOKS):
            if not (barriers := [each for each in serious_barriers(page) if each.partition(",")[0] not in theirs]):
                break
            # What fades in or waits for an answer is pale for a moment.
            page.wait_for_timeout(500)
        assert not barriers, barriers
    finally:
        context.close()


def serious_barriers(page: "Page") -> list[str]:
    """What axe-core calls serious or critical: which rule, how often, and the first place."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (extra dev)")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{rule['id']}, {len(rule['nodes'])}: {rule['nodes'][0]['html'][:200]} {rule['nodes'][0]['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


def scrolls_sideways(page: "Page") -> bool:
    """Whether the page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def _failure(request: "Request") -> list[str]:
    # What a page breaks off itself (a stream that it has read to the end) is no failure.
    return [] if request.failure == "net::ERR_ABORTED" else [f"{request.url}: {request.failure}"]
