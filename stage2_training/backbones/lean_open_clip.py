"""open_clip, imported without scikit-learn and without collecting garbage, so that every command starts sooner.

open_clip imports transformers, which imports scikit-learn, where it is installed, for one function of assisted
generation. Nothing here generates; whoever needs scikit-learn itself imports it afterwards as ever.
"""

import sys

from sspa.shared.heavy_imports import heavy_import

_LEFT_OUT = "sklearn"

_hidden = _LEFT_OUT not in sys.modules
if _hidden:
    sys.modules[_LEFT_OUT] = None  # type: ignore[assignment] # by Python's rules: cannot be imported
try:
    with heavy_import():
        from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
finally:
    if _hidden:
        del sys.modules[_LEFT_OUT]

__all__ = ["HFTokenizer", "SimpleTokenizer"]
