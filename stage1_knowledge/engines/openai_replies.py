"""What a server replied, as an answer; and what it replied that is none, as one line for the user."""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.terminal import printable
from sspa.stage1_knowledge.answer_text import UNFINISHED
from sspa.stage1_knowledge.engines.contract import Answer

KEY_VARIABLE = "OPENAI_API_KEY"
# Of one reply; the longest answers have some kilobytes.
LARGEST_REPLY = 4 << 20
_KEY = re.compile(r"(?<=Bearer )\S+|\bsk-[\w-]{8,}")
_AGAIN = "the answers so far are kept, run the same command again"
_KEPT = "the answers so far are kept"
_PATH = "does the URL end in /v1?"
_PREFIX = re.compile(r"^Error code: \d+(?: - )?")
_FILTERED = re.compile(r"content_filter|content management policy|ResponsibleAIPolicyViolation")


def answer_of(reply: Any, url: str) -> Answer:
    """The answer in a chat completion.

    Raises:
        UserError: it is something else; the line says what.
    """
    choices = getattr(reply, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise UserError(f"--endpoint {url}: answers with {_what(reply)}, not with a chat completion; {_PATH}")
    choice, usage = choices[0], getattr(reply, "usage", None)
    message, finish = getattr(choice, "message", None), getattr(choice, "finish_reason", None)
    try:
        text = _text(getattr(message, "content", None))
        thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
        details = getattr(usage, "prompt_tokens_details", None)
        return Answer(
            text=UNFINISHED if thought and not text.strip() else text,
            finish={"length": "length", "content_filter": "filter"}.get(str(finish), "stop"),
            prompt_tokens=int(usage.prompt_tokens or 0) if usage else 0,
            output_tokens=int(usage.completion_tokens or 0) if usage else 0,
            cached_tokens=int(details.cached_tokens or 0) if details else 0,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"--endpoint {url}: its answer is not one of the OpenAI API ({_short(error)}); {_PATH}"
        ) from error


def _text(content: Any) -> str:
    """The text of a message: a string, or a list of parts of which some are text."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content or "")


def _what(reply: Any) -> str:
    """What came instead of an answer."""
    if isinstance(reply, str):
        return f"text ({_short(reply)!r})" if reply.strip() else "nothing"
    if (said := getattr(reply, "error", None)) is not None:
        return f"an error ({_short(said.get('message', said) if isinstance(said, dict) else said)})"
    if hasattr(reply, "choices"):
        return "no choices"
    return f"{type(reply).__name__} ({_short(reply)})"


def model_names(ask: Callable[[], Any], url: str) -> list[str]:
    """The names in the list of models that `ask` returns.

    Raises:
        UserError: it is something else.
    """
    try:
        # Within, because the client itself fails on a page that is text.
        return [str(model.id) for model in ask().data]
    except (AttributeError, TypeError) as error:
        raise UserError(f"--endpoint {url}: what it answers is no list of models; {_PATH}") from error


def refusal_of(error: Any) -> str:
    """What a server said when it refused; the client takes only some forms of errors apart."""
    return _PREFIX.sub("", str(error.message)) or str(error.response.text)


def was_filtered(error: Any) -> bool:
    """True if a refusal is about this one question, and not about the way it was asked."""
    return error.code == "content_filter" or bool(_FILTERED.search(refusal_of(error)))


def asked_wait(error: Any) -> float | None:
    """How many seconds a server that refuses for now asks to wait; None if it does not say."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.0, float(error.response.headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    return None


class UnreachableError(UserError):
    """A server that gives no answer to anybody now: another may."""


class Reported:
    """Turns server and network errors into one line for the user."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        import openai

        if isinstance(error.__cause__, UserError):
            raise error.__cause__
        # Not `from error`: its text, which a log may show, can hold the key.
        if isinstance(error, openai.APIConnectionError):
            raise UnreachableError(
                f"--endpoint {self._url}: cannot be reached ({_short(error)}); is the server up? {_AGAIN}"
            ) from None
        if isinstance(error, openai.APIStatusError):
            said = f"refused ({error.status_code}: {_short(refusal_of(error))})"
            kind_of_error = UnreachableError if error.status_code >= 500 else UserError
            raise kind_of_error(f"--endpoint {self._url}: {said}; {_advice(error)}") from None
        if isinstance(error, openai.OpenAIError | ValueError | RecursionError):
            raise UserError(
                f"--endpoint {self._url}: its answer is not one of the OpenAI API ({_short(error)}); {_PATH}"
            ) from None


def _advice(error: Any) -> str:
    """What to do about a refusal; asking again helps only where the server may answer otherwise then."""
    status = error.status_code
    if status == 429 and (wait := asked_wait(error)):
        return f"it asks to wait for {wait:,.0f} s; {_AGAIN} then"
    if status in (401, 403):
        return f"check the key in ${KEY_VARIABLE}; {_KEPT}"
    if status == 404:
        return f"{_PATH} is --model the name under which the server knows the model? {_KEPT}"
    return _AGAIN if status >= 500 or status in (408, 409, 429) else _KEPT


def _short(said: Any) -> str:
    return printable(masked(" ".join(str(said).split()))[:200])


def masked(text: str) -> str:
    """The text without anything that looks like an API key: servers put the one they got into their errors."""
    if key := os.environ.get(KEY_VARIABLE):
        text = text.replace(key, "***")
    return _KEY.sub("***", text)


def bounded_client(timeout: float) -> Any:
    """An HTTP client that reads no more than `LARGEST_REPLY`, and sends the key to no other address."""
    import httpx

    class Counted(httpx.SyncByteStream):
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __iter__(self) -> Iterator[bytes]:
            read = 0
            for block in self.stream:
                read += len(block)
                if read > LARGEST_REPLY:
                    raise UserError(f"--endpoint: a reply has more than {LARGEST_REPLY:,} bytes; that is no answer")
                yield block

        def close(self) -> None:
            self.stream.close()

    def count(response: Any) -> None:
        response.stream = Counted(response.stream)

    return httpx.Client(timeout=timeout, follow_redirects=False, event_hooks={"response": [count]})
