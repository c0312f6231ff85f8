"""The content-addressed key of an answer: a hash over everything that can change it, and nothing else.

`TABLE` is the one place that says what enters the key and what does not, each with its reason; the tests
hold `request_key` to it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sspa.stage1_knowledge.engines.contract import Identity, Message, Sampling

KEY_VERSION = 1
# Created once: json.dumps would create one for each of hundreds of thousands of keys.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Part:
    """One thing that is, or is not, part of a key."""

    name: str
    enters: bool
    why: str


TABLE = (
    Part("key_version", True, "a change of this very computation must not find old answers"),
    Part("messages", True, "what the model reads: label, hint and prompt are in it"),
    Part("chat_template", True, "it turns the messages into the text the model sees"),
    Part("model", True, "another model answers otherwise"),
    Part("revision", True, "the same name can stand for other weights"),
    Part("quantisation", True, "it changes the weights"),
    Part("dtype", True, "rounding changes the draw of a token"),
    Part("engine_arguments", True, "vLLM's arguments may change an answer, unless known not to (vllm_arguments.py)"),
    Part("temperature", True, "sampling"),
    Part("top_p", True, "sampling"),
    Part("repetition_penalty", True, "sampling"),
    Part("max_tokens", True, "an answer can be cut by it"),
    Part("seed", True, "it draws the tokens; sample and attempt act through it"),
    Part("answer_form", True, "a sentence and fields are different answers"),
    Part("schema", True, "it constrains the tokens of the answer form `fields`"),
    Part("structured_backend", True, "backends constrain tokens differently; empty where nothing is constrained"),
    Part("label", False, "its text and hint are in the messages; under another data set's name the answer serves too"),
    Part("prompt_file", False, "only what it renders to is asked; the table records name and hash"),
    Part("engine", False, "offline, Ray and replay run the same model; an upgrade must not ask everything again"),
    Part("endpoint", False, "where a model is served does not change what it is"),
    Part("batch_size", False, "speed only; what floating point makes of batch shapes is why answers are kept"),
    Part("gpus", False, "speed only, as for the batch size"),
    Part("memory", False, "the size of the key-value cache changes speed only"),
    Part("prefix_caching", False, "the same numbers, computed once"),
    Part("thinking", False, "always off where the chat template knows it; a switch for it would have to enter"),
    Part("timeout", False, "an answer that came is the same however long one would have waited"),
    Part("concurrency", False, "speed only"),
    Part("verdict_rules", False, "they judge answers and do not change them; they are applied afresh"),
    Part("retries", False, "how often may be asked does not change an answer; the seed names each attempt"),
)


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8 as it is, no NaN."""
    return _CANONICAL.encode(value).encode()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def common_parts(
    identity: Identity, sampling: Sampling, answer_form: str, schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The parts of a key that all requests of a run share."""
    # Left out where there are none: the keys of answers from before there could be any stay valid.
    arguments = {"engine_arguments": identity.engine_arguments} if identity.engine_arguments else {}
    return {
        **arguments,
        "key_version": KEY_VERSION,
        "chat_template": identity.chat_template,
        "model": identity.model,
        "revision": identity.revision,
        "quantisation": identity.quantisation,
        "dtype": identity.dtype,
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "repetition_penalty": float(sampling.repetition_penalty),
        "answer_form": answer_form,
        "schema": dict(schema) if schema else None,
        "structured_backend": identity.structured_backend if schema else "",
    }


def request_key(common: str, messages: str, seed: int, max_tokens: int) -> str:
    """The key of one request: a hash over the hashes of the common parts and of the messages.

    Args:
        common: `digest(common_parts(...))`, computed once per run.
        messages: `messages_digest(...)`, computed once per label.
        seed: this request's seed.
        max_tokens: this request's token limit.
    """
    return digest({"common": common, "messages": messages, "seed": seed, "max_tokens": max_tokens})


def messages_digest(messages: Sequence[Message]) -> str:
    """The hash of a chat."""
    return digest(list(messages))
