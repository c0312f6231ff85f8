"""The batch files of OpenAI and others: questions out, answers in, hours later, at half the price."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request, Sampling
from sspa.stage1_knowledge.engines.openai_arguments import Arguments, beyond_standard
from sspa.stage1_knowledge.engines.openai_endpoint import identity_of
from sspa.stage1_knowledge.engines.openai_replies import LARGEST_REPLY, answer_of

_PATH = "/v1/chat/completions"


def write_batch(
    path: Path, requests: Iterable[Request], model: str, sampling: Sampling, schema: Mapping[str, Any] | None
) -> int:
    """Write questions as a batch file, each with its key; returns how many.

    Only arguments of the OpenAI API itself are sent: nobody would be there to leave out what a provider refuses.

    Raises:
        UserError: the file cannot be written.
    """
    arguments = Arguments(sampling, schema, str(path), standard=True)
    count = 0
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as file:
        for request in requests:
            body = {"model": model, "messages": list(request.messages), **arguments.of(request)}
            line = {"custom_id": request.key, "method": "POST", "url": _PATH, "body": body}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count


class BatchAnswers(Engine):
    """Answers from a provider's results for a batch file."""

    def __init__(self, path: Path, model: str, sampling: Sampling) -> None:
        """Prepare; the file is read at the first question."""
        self._path, self._model, self._sampling = path, model, sampling

    @property
    def identity(self) -> Identity:
        return identity_of(self._model)

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(beyond_standard(self._sampling))

    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        """Yield the answers that the file has.

        Raises:
            UserError: the file cannot be read, is none of results, or lacks answers; those that it has are kept.
        """
        from openai.types.chat import ChatCompletion

        asked = {request.key: request for request in requests}
        failed: list[str] = []
        count = len(asked)
        for number, line in enumerate(self._lines(), start=1):
            where = f"--batch-in {self._path}, line {number}"
            result = _result(line, where)
            request = asked.get(str(result.get("custom_id")))
            if request is None:
                continue
            if (body := _body(result)) is None:
                failed.append(_failure(result))
                continue
            # As the client makes it of a server's reply.
            yield asked.pop(request.key), answer_of(ChatCompletion.construct(**body), where)
        if asked:
            why = f" ({len(failed)} failed, the first with {failed[0]!r})" if failed else ""
            raise UserError(
                f"--batch-in {self._path}: has no answer to {len(asked)} of {count} questions{why}; the others "
                "are kept: write those that are left with --batch-out, with the same options"
            )

    def _lines(self) -> Iterator[str]:
        try:
            with self._path.open(encoding="utf-8") as file:
                # Bounded, since a file of another kind can be one long line.
                while line := file.readline(LARGEST_REPLY):
                    if line.strip():
                        yield line
        except OSError as error:
            raise UserError(f"--batch-in {self._path}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise UserError(f"--batch-in {self._path}: is not text in UTF-8") from error


def _result(line: str, where: str) -> dict[str, Any]:
    try:
        result = json.loads(line)
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict) or "custom_id" not in result:
        raise UserError(f"{where}: is no result of a batch, a JSON object with custom_id and response")
    return result


def _body(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The chat completion in a result; None if the request failed."""
    response = result.get("response")
    body = response.get("body") if isinstance(response, dict) and response.get("status_code", 200) == 200 else None
    return body if isinstance(body, dict) else None


def _failure(result: Mapping[str, Any]) -> str:
    said = result.get("error") or result.get("response")
    return " ".join(json.dumps(said, ensure_ascii=False).split())[:160]
