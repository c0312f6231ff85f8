"""Answers from a recorded cache: repeats a run without a model, and serves most tests."""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request

_BLOCK = 512


class Replay(Engine):
    """Replays the answers of one model from a cache."""

    def __init__(self, store: AnswerStore, model: str | None = None) -> None:
        """Adopt the recorded identity, so that keys and rows match those of the recorded run.

        Raises:
            UserError: the cache has no answers by `model`, or answers by several models and none is named.
        """
        self._store = store
        found = [identity for identity in store.identities() if model in (None, identity.model, _pinned(identity))]
        if not found:
            raise UserError(f"{store.path}: holds no answers{f' of {model}' if model else ''} to replay")
        # The engine is not part of a key, so recordings from before and after an upgrade count as one.
        if len({dataclasses.replace(identity, engine="") for identity in found}) > 1:
            names = ", ".join(sorted({_pinned(identity) for identity in found}))
            raise UserError(f"{store.path}: holds answers of several models; name one with --model: {names}")
        self._identity = found[-1]

    @property
    def identity(self) -> Identity:
        return self._identity

    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        """Yield the recorded answers.

        Raises:
            UserError: the answer to a question was never recorded.
        """
        queue = iter(requests)
        while block := list(islice(queue, _BLOCK)):
            known = dict(self._store.find(request.key for request in block))
            for request in block:
                if request.key not in known:
                    question = request.messages[-1]["content"]
                    raise UserError(
                        f"{self._store.path}: has no answer to {question[:80]!r} (key {request.key[:12]}); "
                        "run once without --replay and with --cache to record it"
                    )
                yield request, known[request.key]


def _pinned(identity: Identity) -> str:
    """A name that tells recorded models apart; models behind an endpoint have no revision."""
    return f"{identity.model}@{identity.revision[:12] or 'endpoint'}"
