"""Any server that speaks the OpenAI API: vLLM's own, or another."""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from itertools import islice
from typing import Any

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request, Sampling

RETRIES = 5
TIMEOUT_S = 300.0


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
            raise UserError(f"--endpoint {url}: not a URL; write it as http://host:port/v1")
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
        choice, usage = reply.choices[0], reply.usage
        details = usage.prompt_tokens_details if usage else None
        return Answer(
            text=choice.message.content or "",
            finish="length" if choice.finish_reason == "length" else "stop",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.completion_tokens if usage else 0,
            cached_tokens=(details.cached_tokens or 0) if details else 0,
        )

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
            names = [model.id for model in self._client.models.list().data]
        if len(names) != 1:
            raise UserError(
                f"--endpoint {self._url}: serves {len(names)} models ({', '.join(names[:5])}); name --model"
            )
        self._model = names[0]
        return names[0]

    @cached_property
    def _client(self) -> Any:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise UserError("--endpoint needs the package openai; install the extra `cpu` or `gpu`") from error
        key = os.environ.get("OPENAI_API_KEY") or "none"
        return OpenAI(base_url=self._url, api_key=key, max_retries=RETRIES, timeout=self._timeout)

    def _errors(self) -> "_Reported":
        return _Reported(self._url)

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()


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
        if isinstance(error, openai.APIConnectionError):
            raise UserError(f"--endpoint {self._url}: cannot be reached ({error}); is the server up? {kept}") from error
        if isinstance(error, openai.APIStatusError):
            said = " ".join(str(error.message).split())[:200]
            raise UserError(f"--endpoint {self._url}: refused ({error.status_code}: {said}); {kept}") from error
