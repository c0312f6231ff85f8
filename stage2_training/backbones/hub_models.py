"""Models from the Hugging Face hub: pinned by commit, downloaded only where the user asks for it."""

import re
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.hub import hub_folder

SCHEME = "hf-hub:"
_SPEC = re.compile(r"hf-hub:([\w.-]+/[\w.-]+)(?:@([0-9a-f]{40}))?")
_UNASKED = (
    "the run needs this model from the hub; if you trust it, let `sspa-train predict` get it with --allow-download"
)


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
    name, commit = _parts(spec)
    refusal = None if allow_download else _UNASKED
    return hub_folder(spec, name, commit, "check the name and the network", refusal)


def _parts(spec: str) -> tuple[str, str | None]:
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise UserError(f"{spec}: write hf-hub:OWNER/NAME, or hf-hub:OWNER/NAME@COMMIT with all 40 digits")
    return found[1], found[2]
