"""Model folders of the Hugging Face hub, in its own cache: used as they are if they were downloaded before."""

from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.terminal import say

# No Python files, and of weights safetensors only.
_PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]


def hub_folder(asked: str, name: str, commit: str | None, remedy: str, refusal: str | None = None) -> Path:
    """The local folder of a model, named after its commit.

    A snapshot that is there already is preferred, so that the same command means the same weights tomorrow.

    Args:
        asked: what the user wrote, for messages.
        name: "OWNER/NAME".
        commit: of the model's repository; None for the newest of its main branch.
        remedy: what to do if the model is not available.
        refusal: why nothing may be downloaded; None if it may.

    Raises:
        UserError: not a name on the hub, not available, or not there and `refusal` is given.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=_PATTERNS, local_files_only=True))
    except LocalEntryNotFoundError:
        if refusal is not None:
            raise UserError(f"{asked}: {refusal}") from None
    except HFValidationError as error:
        raise UserError(f"{asked}: not the name of a model on the hub; {remedy}") from error
    say(f"downloading {name}")
    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{asked}: not available from the hub ({reason}); {remedy}") from error
