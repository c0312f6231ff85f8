from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a comparison keeps is no business of the user who runs the tests."""
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
