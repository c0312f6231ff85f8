"""One file for each built-in protocol; `get_protocol` finds it by name, `protocol_names` lists them."""

import importlib
import pkgutil

from sspa.shared.errors import UserError
from sspa.shared.suggestions import nearest_or_all
from sspa.stage2_training.evaluation.protocol import Protocol


def protocol_names() -> tuple[str, ...]:
    """The names of the built-in protocols, sorted."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


def get_protocol(name: str) -> Protocol:
    """The built-in protocol of that name.

    Raises:
        UserError: there is none.
    """
    if name not in protocol_names():
        raise UserError(f"there is no protocol {name!r}; {nearest_or_all(name, protocol_names())}")
    protocol: Protocol = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").PROTOCOL
    return protocol
