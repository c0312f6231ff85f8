"""Any server that speaks the OpenAI API: vLLM's own, or another."""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from itertools import islice
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request, Sampling
from sspa.stage1_knowledge.engines.openai_arguments import Arguments
from sspa.stage1_knowledge.engines.openai_replies import (
    KEY_VARIABLE,
    Reported,
    answer_of,
    asked_wait,
    bounded_client,
    model_names,
    refusal_of,
    was_filtered,
)

RETRIES = 5
TIMEOUT_S = 300.0
# How long one request waits in all where the server asks for it.
PATIENCE_S = 900.0


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
        self._url, self._model = url, model
        self._concurrency, self._timeout = concurrency, timeout
        self._arguments = Arguments(sampling, schema, self._shown)
        self._lock, self._closing, self._waiting_until = threading.Lock(), threading.Event(), 0.0

    @property
    def identity(self) -> Identity:
        # With --model, looking up known answers needs no server.
        model = self._model or self._only_model()
        return Identity(engine="openai-api", model=model, structured_backend="server")

    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        """Keep `concurrency` requests in flight and yield each answer as it arrives."""
        model = self.identity.model
        self._closing.clear()
        queue = iter(requests)
        with ThreadPoolExecutor(self._concurrency) as pool:
            flying: dict[Future[Answer], Request] = {}
            try:
                while True:
                    for request in islice(queue, self._concurrency - len(flying)):
                        flying[pool.submit(self._ask, request, model)] = request
                    if not flying:
                        return
                    for done in wait(flying, return_when=FIRST_COMPLETED).done:
                        yield flying.pop(done), done.result()
            finally:
                self._closing.set()
                for future in flying:
                    future.cancel()

    def _ask(self, request: Request, model: str) -> Answer:
        import openai

        waited = 0.0
        with self._errors():
            while True:
                sent = self._arguments.of(request)
                try:
                    # As `extra_body`, because servers know arguments that the client does not.
                    reply = self._client.chat.completions.create(
                        model=model, messages=list(request.messages), extra_body=sent
                    )
                    return answer_of(reply, self._shown)
                except openai.RateLimitError as error:
                    # The client has tried again by itself, but waits for a minute at most.
                    seconds = asked_wait(error)
                    if not seconds or waited + seconds > PATIENCE_S or error.code == "insufficient_quota":
                        raise
                    self._say_waiting(seconds)
                    waited += seconds
                    if self._closing.wait(seconds):
                        raise
                except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                    if was_filtered(error):
                        return Answer("", "filter")
                    if not self._arguments.leave_out(sent, refusal_of(error), error.param):
                        raise

    def _say_waiting(self, seconds: float) -> None:
        with self._lock:
            now = time.monotonic()
            if now >= self._waiting_until:
                say(f"--endpoint {self._shown}: asks to wait for {seconds:,.0f} s; waiting")
            self._waiting_until = max(self._waiting_until, now + seconds)

    def _only_model(self) -> str:
        with self._errors():
            names = model_names(self._client.models.list, self._shown)
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
            http_client=bounded_client(self._timeout),
        )

    def _errors(self) -> Reported:
        return Reported(self._shown)

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(self._arguments.left_out)

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()


def _shown(url: str) -> str:
    """The address without user, password and query, which can be secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
