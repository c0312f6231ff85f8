"""Servers that speak the OpenAI API: vLLM's own, or others."""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from itertools import cycle, islice
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request, Sampling
from sspa.stage1_knowledge.engines.openai_arguments import Arguments
from sspa.stage1_knowledge.engines.openai_replies import (
    KEY_VARIABLE,
    Reported,
    UnreachableError,
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


def identity_of(model: str) -> Identity:
    """The identity of a model behind the OpenAI API: servers disclose neither weights nor chat template."""
    return Identity(engine="openai-api", model=model, structured_backend="server")


class OpenAiEndpoint(Engine):
    """Chat completions over HTTP, with bounded concurrency; retries with back-off are the client's own.

    Key, organisation and project are read from $OPENAI_API_KEY, $OPENAI_ORG_ID and $OPENAI_PROJECT_ID.
    """

    def __init__(
        self,
        urls: Sequence[str],
        sampling: Sampling,
        model: str | None = None,
        schema: Mapping[str, Any] | None = None,
        concurrency: int = 16,
        timeout: float = TIMEOUT_S,
    ) -> None:
        """Prepare; no server is asked before the first question.

        Args:
            urls: servers of the same model, which take turns; one that cannot be reached is left out if others remain.
            sampling: how answers are drawn.
            model: its name; None where the servers have only one.
            schema: the JSON schema of answers; None for plain text.
            concurrency: requests in flight at each server.
            timeout: seconds to wait for an answer.

        Raises:
            UserError: not a URL, or the same twice.
        """
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise UserError(f"--endpoint {url[:200]}: not a URL; write it as http://host:port/v1")
            if urls.count(url) > 1:
                raise UserError(f"--endpoint {_shown(url)}: is given twice")
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._servers = [_Server(url, Arguments(sampling, schema, _shown(url)), timeout, self._closing) for url in urls]
        self._turns = cycle(range(len(self._servers)))
        self._gone: set[_Server] = set()
        self._model, self._concurrency = model, concurrency * len(self._servers)

    @property
    def identity(self) -> Identity:
        # With --model, looking up known answers needs no server.
        return identity_of(self._model or self._only_model())

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
        while True:
            server = self._next()
            try:
                return server.ask(request, model)
            except UnreachableError:
                if not self._leave_out(server):
                    raise

    def _next(self) -> "_Server":
        """The server whose turn it is, of those that are left."""
        with self._lock:
            while (server := self._servers[next(self._turns)]) in self._gone:
                pass
            return server

    def _leave_out(self, server: "_Server") -> bool:
        """Ask this server no more; False if there is no other."""
        with self._lock:
            if server not in self._gone:
                if len(self._gone) == len(self._servers) - 1:
                    return False
                self._gone.add(server)
                say(f"--endpoint {server.shown}: gives no more answers; going on with the others")
            return True

    def _only_model(self) -> str:
        served = {name for server in self._servers for name in server.models()}
        if len(served) != 1:
            where = f"--endpoint {', '.join(server.shown for server in self._servers)}"
            raise UserError(f"{where}: serves {len(served)} models ({', '.join(sorted(served)[:5])}); name --model")
        (self._model,) = served
        return self._model

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for server in self._servers for name in server.arguments.left_out))

    def close(self) -> None:
        for server in self._servers:
            server.close()


class _Server:
    """One server. Used by many threads at a time."""

    def __init__(self, url: str, arguments: Arguments, timeout: float, closing: threading.Event) -> None:
        self.shown, self.arguments = _shown(url), arguments
        self._url, self._timeout, self._closing = url, timeout, closing
        self._lock, self._waiting_until = threading.Lock(), 0.0

    def ask(self, request: Request, model: str) -> Answer:
        import openai

        waited = 0.0
        with Reported(self.shown):
            while True:
                sent = self.arguments.of(request)
                try:
                    # As `extra_body`, because servers know arguments that the client does not.
                    reply = self._client.chat.completions.create(
                        model=model, messages=list(request.messages), extra_body=sent
                    )
                    return answer_of(reply, self.shown)
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
                    if not self.arguments.leave_out(sent, refusal_of(error), error.param):
                        raise

    def _say_waiting(self, seconds: float) -> None:
        with self._lock:
            now = time.monotonic()
            if now >= self._waiting_until:
                say(f"--endpoint {self.shown}: asks to wait for {seconds:,.0f} s; waiting")
            self._waiting_until = max(self._waiting_until, now + seconds)

    def models(self) -> list[str]:
        """The names of the models that it serves."""
        with Reported(self.shown):
            return model_names(self._client.models.list, self.shown)

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()

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


def _shown(url: str) -> str:
    """The address without user, password and query, which can be secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
