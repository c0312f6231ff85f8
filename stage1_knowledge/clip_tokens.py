"""How many of the 77 tokens of CLIP's text tower a description needs, and which part of it is truncated.

Built from the vocabulary file that ships with open_clip, located without importing open_clip (which would
load torch). The tokenizer is the `tokenizers` library's, fast enough for hundreds of thousands of descriptions.
"""

import gzip
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

CONTEXT = 77
# The start and end tokens take two.
_ROOM = CONTEXT - 2
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_BLOCK = 10_000
_MERGES = 49152 - 256 - 2


def knowledge_prompt(text: str, description: str) -> str:
    """The text stage two encodes for a label: "A photo of a {label}." joined with the description."""
    return f"A photo of a {text}. {description}".strip()


def clip_tokens(texts: Sequence[str], descriptions: Sequence[str]) -> list[tuple[int, str]]:
    """Token count of each joined prompt, start and end tokens included, and the part of it that is truncated.

    Example:
        >>> clip_tokens(["cat"], ["A small animal."])
        [(12, '')]
    """
    prompts = [knowledge_prompt(text, description) for text, description in zip(texts, descriptions, strict=True)]
    # No token crosses a space, so each distinct chunk is counted once; only truncated prompts are tokenized in full.
    sizes = _chunk_sizes({chunk for prompt in prompts for chunk in prompt.split()})
    counted = []
    for prompt in prompts:
        needed = sum(sizes[chunk] for chunk in prompt.split())
        cut = prompt[_tokenizer().encode(prompt).offsets[_ROOM][0] :] if needed > _ROOM else ""
        counted.append((needed + 2, cut))
    return counted


def _chunk_sizes(chunks: set[str]) -> dict[str, int]:
    """Tokens of each chunk, without start and end."""
    ordered = sorted(chunks)
    sizes: dict[str, int] = {}
    for start in range(0, len(ordered), _BLOCK):
        block = ordered[start : start + _BLOCK]
        encodings = _tokenizer().encode_batch(block)
        sizes.update((chunk, len(encoding.ids)) for chunk, encoding in zip(block, encodings, strict=True))
    return sizes


@cache
def _tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("open_clip_torch is a dependency of this package, but is not installed")
    file = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : _MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    alphabet = _byte_characters()
    tokens = [*alphabet, *(character + "</w>" for character in alphabet), *(a + b for a, b in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _byte_characters() -> list[str]:
    """The printable stand-ins of the 256 bytes, in the order of CLIP's vocabulary (GPT-2's scheme)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + offset) for offset in range(256 - len(printable))]
