"""Models from the hub, without the hub: names are pinned, and nothing is downloaded that was not asked for."""

from pathlib import Path
from typing import Any

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.backbones.hub_models import pinned
from sspa.stage2_training.config.resolving import resolve_config

from .architectures import write_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Stands in for `snapshot_download`: what is in the cache, and what was downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cached, self.downloads = folder, False, 0
        write_model("vit", folder / COMMIT)

    def __call__(
        self, name: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool = False
    ) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        assert name == "owner/name"
        assert revision in (None, COMMIT)
        assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in allow_patterns)
        if not self.cached:
            if local_files_only:
                raise LocalEntryNotFoundError("not there")
            self.downloads += 1
            self.cached = True
        return str(self.folder / COMMIT)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", made)
    return made


def test_a_name_on_the_command_line_is_downloaded_once_and_pinned(hub: Hub) -> None:
    settings = ["backbone.name=hf-hub:owner/name", "knowledge=k.parquet"]
    assert resolve_config(settings=settings).backbone.name == f"hf-hub:owner/name@{COMMIT}"
    assert resolve_config(settings=settings).backbone.name == f"hf-hub:owner/name@{COMMIT}"
    assert hub.downloads == 1
    assert pinned(f"hf-hub:owner/name@{COMMIT}") == f"hf-hub:owner/name@{COMMIT}"
    assert pinned("embedded") == "embedded"
    assert create_backbone(f"hf-hub:owner/name@{COMMIT}", allow_download=False).name.endswith(COMMIT)


def test_a_name_in_a_folder_is_downloaded_only_if_allowed(hub: Hub) -> None:
    spec = f"hf-hub:owner/name@{COMMIT}"
    with pytest.raises(UserError, match=r"needs this model from the hub; .*--allow-download"):
        create_backbone(spec, allow_download=False)
    assert hub.downloads == 0
    create_backbone(spec, allow_download=True)
    create_backbone(spec, allow_download=False)
    assert hub.downloads == 1


@pytest.mark.parametrize("spec", ["hf-hub:owner/name@main", "hf-hub:owner", "hf-hub:a/b/c", "hf-hub:../name@" + COMMIT])
def test_other_names_are_one_line(spec: str) -> None:
    with pytest.raises(UserError, match=r"hf-hub:"):
        create_backbone(spec)


def test_a_name_in_a_folder_must_be_pinned() -> None:
    with pytest.raises(UserError, match="does not say which commit is meant"):
        create_backbone("hf-hub:owner/name", allow_download=False)


def test_what_the_hub_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def refuse(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no network\nat all")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        UserError, match=r"not available from the hub \(no network at all\); check the name and the network"
    ):
        pinned("hf-hub:owner/name")
