"""Model folders of the hub, with a stand-in for the hub: what counts as there, and what is fetched."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.shared.hub import hub_folder

SHARDS = [f"model-0000{number}-of-00004.safetensors" for number in range(1, 5)]
INDEX = "model.safetensors.index.json"


def _write(folder: Path, *names: str) -> None:
    for name in names:
        shards = {"weight_map": {f"layer{number}": shard for number, shard in enumerate(SHARDS)}}
        (folder / name).write_text(json.dumps(shards) if name == INDEX else "{}")


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, list[list[str]]]]:
    """Asks for a model of which some files are in the cache and others on the hub; says what was downloaded."""

    def run(there: list[str], on_hub: list[str], **options: object) -> tuple[Path, list[list[str]]]:
        folder, downloads = tmp_path / "commit", []
        folder.mkdir()
        _write(folder, *there)

        def snapshot_download(
            name: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool = False
        ) -> str:
            assert (name, revision) == ("owner/name", options.get("revision"))
            if not local_files_only:
                downloads.append(allow_patterns)
                _write(folder, *on_hub)
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        given = {"revision": None, "remedy": "check the name", **options}
        return hub_folder("--model owner/name", "owner/name", **given), downloads  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize(
    "there",
    [["config.json", "model.safetensors"], ["config.json", INDEX, *SHARDS], ["config.json", *SHARDS]],
)
def test_what_is_whole_is_not_downloaded_again(fetch: Callable, there: list[str], tmp_path: Path) -> None:
    assert fetch(there, []) == (tmp_path / "commit", [])


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (["tokenizer.json"], "it holds no weights"),
        (["config.json", INDEX, SHARDS[0]], "3 of its files of weights are missing"),
        (["config.json", SHARDS[0]], "3 of its files of weights are missing"),
    ],
)
def test_what_lacks_weights_is_completed(
    fetch: Callable, there: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, downloads = fetch(there, ["config.json", INDEX, *SHARDS], revision="v2")

    assert len(downloads) == 1
    assert f"downloading owner/name ({said}" in capsys.readouterr().err


def test_what_stays_incomplete_is_refused(fetch: Callable) -> None:
    with pytest.raises(UserError, match=r"^--model owner/name: it holds no weights in safetensors; check the name$"):
        fetch(["tokenizer.json"], ["pytorch_model.bin"])


def test_nothing_is_downloaded_that_was_refused(fetch: Callable) -> None:
    with pytest.raises(UserError, match=r"^--model owner/name: not asked for$"):
        fetch(["config.json", INDEX, SHARDS[0]], SHARDS, refusal="not asked for")


def test_code_is_fetched_only_if_it_may_run(fetch: Callable) -> None:
    _, downloads = fetch(["config.json", "model.safetensors"], ["modelling.py"], code=True)

    assert ["*.py" in patterns for patterns in downloads] == [True]


def test_code_that_is_there_is_not_downloaded_again(fetch: Callable) -> None:
    assert fetch(["config.json", "model.safetensors", "modelling.py"], [], code=True)[1] == []


def test_a_gated_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    def snapshot_download(*_: object, local_files_only: bool = False, **__: object) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not there")
        raise GatedRepoError("403", response=httpx.Response(403, request=httpx.Request("GET", "https://hub.invalid")))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=r"is gated; accept its licence .* log in with `hf auth login` or set HF_TOKEN"):
        hub_folder("--model owner/name", "owner/name", None, "check the name")
