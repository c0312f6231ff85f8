"""Models from the Hugging Face hub: pinned by commit, downloaded only where the user asks for it."""

import re
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.terminal import say

SCHEME = "hf-hub:"
_SPEC = re.compile(r"hf-hub:([\w.-]+/[\w.-]+)(?:@([0-9a-f]{40}))?")
# No Python files, and of weights safetensors only.
_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]


def pinned(spec: str) -> str:
    """ "hf-hub:OWNER/NAME" with the commit of its main branch, "hf-hub:OWNER/NAME@COMMIT"; another spec unchanged.

    A commit that was downloaded before is used as it is, so that the same command means the same weights tomorrow.

    Raises:
        UserError: not such a name, or not available.
    """
    if not spec.startswith(SCHEME) or _parts(spec)[1]:
        return spec
    return f"{spec}@{_snapshot(spec, allow_download=True).name}"


def snapshot(spec: str, allow_download: bool) -> Path:
    """The local folder of a pinned model, downloaded if need be.

    Args:
        spec: "hf-hub:OWNER/NAME@COMMIT".
        allow_download: False for names that come from a file and not from the command line.

    Raises:
        UserError: not pinned, not available, or not downloaded yet and `allow_download` is False.
    """
    if not allow_download and _parts(spec)[1] is None:
        raise UserError(f"{spec}: does not say which commit is meant; write {spec}@COMMIT into the run's config.json")
    return _snapshot(spec, allow_download)


def _snapshot(spec: str, allow_download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, commit = _parts(spec)
    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=_PATTERNS, local_files_only=True))
    except LocalEntryNotFoundError:
        if not allow_download:
            raise UserError(
                f"{spec}: the run needs this model from the hub; if you trust it, let `sspa-train predict` get it "
                "with --allow-download"
            ) from None
    except HFValidationError as error:
        raise UserError(f"{spec}: not the name of a model on the hub") from error
    say(f"downloading {spec}")
    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{spec}: cannot be loaded ({reason}); check the name and the network") from error


def _parts(spec: str) -> tuple[str, str | None]:
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise UserError(f"{spec}: write hf-hub:OWNER/NAME, or hf-hub:OWNER/NAME@COMMIT with all 40 digits")
    return found[1], found[2]
