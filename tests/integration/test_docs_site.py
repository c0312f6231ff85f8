"""The documentation site: it builds, no link leads nowhere, and it has what the program itself says."""

import html
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sspa.stage2_training.config.schema import setting_keys

from .browser import visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra docs)")

ROOT = Path(__file__).parent.parent.parent
LINKED = ("prompts", "shared", "stage1_knowledge", "stage2_training")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, from a copy of its sources."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("docs", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("mkdocs.yml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        shutil.copy(ROOT / file, folder)
    # As `make check` links them for mypy.
    packages = folder / ".mypy" / "sspa"
    packages.mkdir(parents=True)
    for name in LINKED:
        (packages / name).symlink_to(ROOT / name)
    (packages / "__init__.py").symlink_to(ROOT / "shared" / "sspa" / "__init__.py")
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"], cwd=folder, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """The site's address: its search does not work from files."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _text(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_every_page_of_the_navigation_is_there(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in re.findall(r'href="([\w-]+\.html)"', home):
        assert (site / page).is_file(), page
    assert 'src="figures/method.svg"' in home
    assert "docs/" not in re.findall(r'href="([^"]+)"', home)


@pytest.mark.slow
def test_the_reference_has_every_setting_and_command(site: Path) -> None:
    settings = _text(site / "settings.html")
    assert [key for key in setting_keys() if key not in settings] == []
    commands = _text(site / "commands.html")
    for wanted in ("sspa-knowledge generate", "sspa-train data prepare", "--overwrite", "artifacts/<labels>.parquet"):
        assert wanted in commands
    python = _text(site / "api.html")
    assert "Tagger.load(" in python
    assert "zero_shot" in python


@pytest.mark.slow
def test_the_site_asks_no_other_host(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = re.findall(
            r'(?:<script[^>]+src|<img[^>]+src|<link[^>]+rel="stylesheet"[^>]+href)="(https?://[^"]+)', page.read_text()
        )
        assert loaded == [], page.name


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_read_it(served: str, browser: "Browser", scheme: str) -> None:
    for name in ("index", "settings", "commands"):
        with visit(browser, f"{served}/{name}.html", theirs=("aria-dialog-name",), color_scheme=scheme) as page:
            assert page.title()
