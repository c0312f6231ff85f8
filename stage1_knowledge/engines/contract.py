"""The contract of every engine: an identity known before it starts, and answers as they arrive.

An engine is one file in this folder with one subclass of `Engine`, and one line in `choice.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Message = dict[str, str]  # one turn of a chat: role and content


@dataclass(frozen=True)
class Identity:
    """Who answers: everything about an engine and its model that can change an answer, and its name for the record.

    `model` is the name the user knows; `revision` pins its weights (a commit, or a hash of the files);
    `chat_template` is the SHA-256 of the template that turns messages into text ("" if the revision covers it
    or the server does not disclose it); `engine` is name and version; `engine_arguments` is the JSON of what else
    the engine was told that can change an answer, "" if nothing.
    """

    engine: str
    model: str
    revision: str = ""
    quantisation: str = ""
    dtype: str = ""
    chat_template: str = ""
    structured_backend: str = ""
    engine_arguments: str = ""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters, all passed to the engine explicitly.

    `seed` and `max_tokens` apply to the first attempt; each `Request` carries its own.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.05
    max_tokens: int = 80
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the model; `key` is the content-addressed key of its answer (see keys.py)."""

    key: str
    messages: tuple[Message, ...]
    seed: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote. `finish` is "stop", "length" at the token limit, or "filter" if a server withheld it."""

    text: str
    finish: str
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


class Engine(ABC):
    """Answers requests. Nothing expensive happens before the first call of `answer`."""

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """Who answers; known without starting the engine.

        Raises:
            UserError: the model cannot be found.
        """

    @abstractmethod
    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        """Yield each request with its answer as soon as it arrives, in any order, each exactly once.

        Raises:
            UserError: the engine cannot start or cannot be reached, with what to do about it.
        """

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of the sampling parameters could not be asked for; for the record of the run."""
        return ()

    def close(self) -> None:  # noqa: B027  (most engines hold nothing)
        """Release memory, processes and connections."""
