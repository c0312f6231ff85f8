"""Any server that speaks the OpenAI API: vLLM's own, or another."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from itertools import islice
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request, Sampling

RETRIES = 5
TIMEOUT_S = 300.0
KEY_VARIABLE = "OPENAI_API_KEY"
# Of one reply; the longest answers have some kilobytes.
LARGEST_REPLY = 4 << 20
_KEY = re.compile(r"(?<=Bearer )\S+|\bsk-[\w-]{8,}")


class OpenAiEndpoint(Engine):
    """Chat completions over HTTP, with bounded concurrency; retries with back-off are the client's own.

    The API key is read from $OPENAI_API_KEY. The server does not disclose weights or chat template, so the
    identity holds only the model's name.
    """

    def __init__(
        self,
        url: str,
        sampling: Sampling,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        concurrency: int = 16,
        timeout: float = TIMEOUT_S,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--endpoint {url[:200]}: not a URL; write it as http://host:port/v1")
        self._shown = _shown(url)
        self._url, self._sampling, self._model, self._schema = url, sampling, model, schema
        self._concurrency, self._timeout = concurrency, timeout

    @property
    def identity(self) -> Identity:
        # With --model, looking up known answers needs no server.
        model = self._model or self._only_model()
        return Identity(engine="openai-api", model=model, structured_backend="server")

    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        """Keep `concurrency` requests in flight and yield each answer as it arrives."""
        model = self.identity.model
        extra = self._extra()
        queue = iter(requests)
        with ThreadPoolExecutor(self._concurrency) as pool:
            flying: dict[Future[Answer], Request] = {}
            try:
                while True:
                    for request in islice(queue, self._concurrency - len(flying)):
                        flying[pool.submit(self._ask, request, model, extra)] = request
                    if not flying:
                        return
                    for done in wait(flying, return_when=FIRST_COMPLETED).done:
                        yield flying.pop(done), done.result()
            finally:
                for future in flying:
                    future.cancel()

    def _ask(self, request: Request, model: str, extra: dict[str, Any]) -> Answer:
        with self._errors():
            reply = self._client.chat.completions.create(
                model=model,
                messages=list(request.messages),
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
                max_tokens=request.max_tokens,
                seed=request.seed,
                **extra,
            )
        try:
            choice, usage = reply.choices[0], reply.usage
            details = usage.prompt_tokens_details if usage else None
            return Answer(
                text=str(choice.message.content or ""),
                finish="length" if choice.finish_reason == "length" else "stop",
                prompt_tokens=int(usage.prompt_tokens) if usage else 0,
                output_tokens=int(usage.completion_tokens) if usage else 0,
                cached_tokens=int(details.cached_tokens or 0) if details else 0,
            )
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise UserError(
                f"--endpoint {self._shown}: its answer is not one of the OpenAI API; is the path right (…/v1)?"
            ) from error

    def _extra(self) -> dict[str, Any]:
        """Parameters beyond the plain API: the schema, and the penalty that only some servers accept."""
        extra: dict[str, Any] = {}
        if self._schema:
            schema = {"name": "fields", "schema": dict(self._schema), "strict": True}
            extra["response_format"] = {"type": "json_schema", "json_schema": schema}
        if self._sampling.repetition_penalty != 1.0:
            extra["extra_body"] = {"repetition_penalty": self._sampling.repetition_penalty}
        return extra

    def _only_model(self) -> str:
        with self._errors():
            try:
                names = [str(model.id) for model in self._client.models.list().data]
            except (AttributeError, TypeError) as error:
                raise UserError(f"--endpoint {self._shown}: lists no models; is the path right (…/v1)?") from error
        if len(names) != 1:
            raise UserError(
                f"--endpoint {self._shown}: serves {len(names)} models ({', '.join(names[:5])}); name --model"
            )
        self._model = names[0]
        return names[0]

    @cached_property
    def _client(self) -> Any:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise UserError("--endpoint needs the package openai; install the extra `cpu` or `gpu`") from error
        return OpenAI(
            base_url=self._url,
            api_key=os.environ.get(KEY_VARIABLE) or "none",
            max_retries=RETRIES,
            timeout=self._timeout,
            http_client=_bounded_client(self._timeout),
        )

    def _errors(self) -> "_Reported":
        return _Reported(self._shown)

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()


def _shown(url: str) -> str:
    """The address without user, password and query, which can be secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _masked(text: str) -> str:
    """The text without anything that looks like an API key: servers put the one they got into their errors."""
    if key := os.environ.get(KEY_VARIABLE):
        text = text.replace(key, "***")
    return _KEY.sub("***", text)


def _bounded_client(timeout: float) -> Any:
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


class _Reported:
    """Turns server and network errors into one line for the user."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        import openai

        kept = "the answers so far are kept, run the same command again"
        if isinstance(error.__cause__, UserError):
            raise error.__cause__
        said = _masked(" ".join(str(error).split()))[:200]
        # Not `from error`: its text, which a log may show, can hold the key.
        if isinstance(error, openai.APIConnectionError):
            raise UserError(f"--endpoint {self._url}: cannot be reached ({said}); is the server up? {kept}") from None
        if isinstance(error, openai.APIStatusError):
            said = _masked(" ".join(str(error.message).split()))[:200]
            raise UserError(f"--endpoint {self._url}: refused ({error.status_code}: {said}); {kept}") from None
        if isinstance(error, openai.OpenAIError | ValueError | RecursionError):
            raise UserError(f"--endpoint {self._url}: its answer is not one of the OpenAI API ({said})") from None
