"""What a request to a server says beside model and messages, less what that server refuses."""

import re
import threading
from collections.abc import Mapping
from typing import Any

from sspa.shared.terminal import say
from sspa.stage1_knowledge.engines.contract import Request, Sampling

# Servers name these in their refusals by other words, too.
_ALSO_CALLED = {"json_schema": "response_format", "structured output": "response_format"}
_SUCCESSOR = {"max_tokens": "max_completion_tokens"}
# As in "Only the default (1) value is supported".
_ONLY_DEFAULT = re.compile(r"\bdefault \((\d+(?:\.\d+)?)\)")


class Arguments:
    """The arguments of each request. What the server refuses is left out of all later ones, and said once.

    Used by many threads at a time.
    """

    def __init__(
        self, sampling: Sampling, schema: Mapping[str, Any] | None, shown_url: str, standard: bool = False
    ) -> None:
        """Arguments for the server at `shown_url`; with `standard` none that only other servers than OpenAI's know."""
        self._shown = shown_url
        self._lock = threading.Lock()
        self._room = "max_completion_tokens" if standard else "max_tokens"
        self._same: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if not standard:
            self._same |= beyond_standard(sampling)
        if schema:
            named = {"name": "fields", "schema": dict(schema), "strict": True}
            self._same["response_format"] = {"type": "json_schema", "json_schema": named}
        self._seeded = True
        self.left_out: list[str] = []

    def of(self, request: Request) -> dict[str, Any]:
        """The arguments of one request, by their names in the body."""
        with self._lock:
            own = {"seed": request.seed} if self._seeded else {}
            return {**self._same, **own, self._room: request.max_tokens}

    def leave_out(self, sent: Mapping[str, Any], refusal: str, parameter: str | None = None) -> bool:
        """Change what later requests say after one was refused.

        Args:
            sent: the arguments of the refused request.
            refusal: what the server said.
            parameter: the argument that it named as the reason, if it did.

        Returns:
            False if the refusal concerns nothing that could be left out; asking again would not help.
        """
        name = parameter if parameter in sent else _first_named(sent, refusal)
        if name is None:
            return False
        with self._lock:
            if name in self._same and self._same[name] != sent[name]:
                # The refusal of another thread's request has changed it meanwhile.
                return True
            if name == self._room:
                if (successor := _SUCCESSOR.get(name)) is None or successor not in refusal:
                    return False
                self._room = successor
                say(f"--endpoint {self._shown}: refuses {name}; {successor} is sent instead")
            elif (default := _default(refusal)) is not None and self._same.get(name, default) != default:
                self._same[name] = default
                self.left_out.append(name)
                say(f"--endpoint {self._shown}: refuses {name} {sent[name]}; its default {default:g} is sent instead")
            elif name in self._same or (name == "seed" and self._seeded):
                self._same.pop(name, None)
                self._seeded = self._seeded and name != "seed"
                self.left_out.append(name)
                say(f"--endpoint {self._shown}: refuses {name}; it is left out")
            return True


def beyond_standard(sampling: Sampling) -> dict[str, Any]:
    """The arguments that vLLM and other servers know and OpenAI's own API does not."""
    # Reasoning models would spend the token limit on their reasoning; other chat templates ignore it.
    found: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
    if sampling.repetition_penalty != 1.0:
        found["repetition_penalty"] = sampling.repetition_penalty
    return found


def _default(refusal: str) -> float | None:
    found = _ONLY_DEFAULT.search(refusal)
    return float(found[1]) if found else None


def _first_named(sent: Mapping[str, Any], refusal: str) -> str | None:
    """The argument that the refusal names first; later ones may be what the server takes instead."""
    names = {name: name for name in sent} | {word: name for word, name in _ALSO_CALLED.items() if name in sent}
    found = re.search("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in names), refusal)
    return names[found[0]] if found else None
