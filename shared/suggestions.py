"""Suggestions for unknown names."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> str:
    """ "did you mean a or b?" for the most similar known names; "" if none is similar."""
    near = get_close_matches(name, list(known), n=count, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else ""


def nearest_or_all(name: str, known: Iterable[str]) -> str:
    """ "did you mean a?", or "known are a, b, c." if no known name is similar."""
    names = list(known)
    return nearest(name, names) or f"known are {', '.join(names)}."
