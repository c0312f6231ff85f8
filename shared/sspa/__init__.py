"""SSPA: split-and-synthesize prompting with gated alignments for multi-label image recognition.

`Tagger` is the class that most users need; it is imported on first access, so that `import sspa` is quick.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sspa.stage2_training.inference.tagger import Tagger as Tagger

__all__ = ["Tagger"]


def __getattr__(name: str) -> Any:
    if name == "Tagger":
        from sspa.stage2_training.inference.tagger import Tagger

        return Tagger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
