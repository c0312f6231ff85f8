"""The names of devices, known without torch, which takes seconds to load."""

from sspa.shared.errors import UserError


def check_device_name(name: str) -> str:
    """`name`, if devices can be called that: auto, cpu, cuda, or cuda:N for the GPU of that number.

    Raises:
        UserError: they cannot.
    """
    kind, _, number = name.partition(":")
    numbered = kind == "cuda" and number.isascii() and number.isdecimal()
    if name not in ("auto", "cpu", "cuda") and not numbered:
        raise UserError(f"--device {name}: is not known; take auto, cpu, cuda, or cuda:N")
    return name
