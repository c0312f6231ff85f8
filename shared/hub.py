"""Model folders of the Hugging Face hub, in its own cache: used as they are if they were downloaded before."""

import re
from collections import defaultdict
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.json_files import read_json
from sspa.shared.terminal import say

# Of weights safetensors only.
_PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]
_CODE = "*.py"
_SHARD = re.compile(r"(.*)-\d+-of-(\d+)\.safetensors")


def hub_folder(
    asked: str, name: str, revision: str | None, remedy: str, refusal: str | None = None, code: bool = False
) -> Path:
    """The local folder of a model, named after its commit.

    A snapshot that is there already is preferred, so that the same command means the same weights tomorrow. One that
    lacks weights, as a tokenizer's or a stopped download leaves it, is completed.

    Args:
        asked: what the user wrote, for messages.
        name: "OWNER/NAME".
        revision: commit, branch or tag of the model's repository; None for the newest of its main branch.
        remedy: what to do if the model is not available.
        refusal: why nothing may be downloaded; None if it may.
        code: also fetch the model's Python files.

    Raises:
        UserError: not a name on the hub, not available, without weights, or not there and `refusal` is given.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_PATTERNS, _CODE] if code else _PATTERNS
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
        missing = _missing_weights(folder)
        if not missing and (not code or any(folder.glob(_CODE))):
            return folder
    except LocalEntryNotFoundError:
        missing = ""
    except HFValidationError as error:
        raise UserError(f"{asked}: not the name of a model on the hub; {remedy}") from error
    if refusal is not None:
        raise UserError(f"{asked}: {refusal}")
    say(f"downloading {name}{f' ({missing})' if missing else ''}")
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise UserError(
            f"{asked}: is gated; accept its licence on its page on the hub, log in with `hf auth login` or set "
            "HF_TOKEN, and run the same command again"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{asked}: not available from the hub ({reason}); {remedy}") from error
    if missing := _missing_weights(folder):
        raise UserError(f"{asked}: {missing}; {remedy}")
    return folder


def _missing_weights(folder: Path) -> str:
    """Which weights a snapshot lacks, in words; "" if it has all."""
    there = {file.name for file in folder.glob("*.safetensors")}
    wanted: set[str] = set()
    for index in folder.glob("*.safetensors.index.json"):
        content = read_json(index)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        wanted |= set(map(str, shards.values())) if isinstance(shards, dict) else set()
    counted: dict[tuple[str, int], int] = defaultdict(int)
    for name in there:
        if shard := _SHARD.fullmatch(name):
            counted[shard[1], int(shard[2])] += 1
    lacking = len(wanted - there) or sum(total - count for (_, total), count in counted.items())
    if lacking:
        return f"{lacking} of its files of weights are missing"
    return "" if there else "it holds no weights in safetensors"
