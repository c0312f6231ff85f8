"""The review's page as a web app of this machine alone: a few static files, photos, and the session behind them."""

import io
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sspa.shared.errors import UserError
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.data.reviewed.entries import Answer, Chosen, Mark
from sspa.stage2_training.pages.overlay import small
from sspa.stage2_training.review.session import Asked, Session
from sspa.stage2_training.serving.origin import foreign, hosts_of, safe_headers

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_STATIC = {"": "review.html", "review.js": "review.js", "review.css": "review.css"}
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_LARGEST_BODY = 1 << 20
_LARGEST_PHOTO, _PHOTOS_KEPT = 1600, 128
_AT_ONCE = 60

# The map of a label over a photo, by their numbers, as JPEG; None where the model has no maps.
DrawMap = Callable[[int, int], bytes | None]


class _Sent(BaseModel):
    """An answer as the page sends it."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=8, max_length=64)
    path: str
    marks: dict[str, Mark]
    suggested: dict[str, float] = Field(default_factory=dict)
    seconds: float = Field(0.0, ge=0, allow_inf_nan=False)
    chosen: Chosen


class _SentTogether(BaseModel):
    """What one key confirmed: a photo's answer, or those of a grid."""

    model_config = ConfigDict(extra="forbid")

    answers: list[_Sent] = Field(max_length=_AT_ONCE)


class _TakenBack(BaseModel):
    """Answers to take back; without ids, the latest."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] = Field(default_factory=list, max_length=_AT_ONCE)


def make_app(session: Session, root: Path, draw_map: DrawMap, by: str, host: str, port: int) -> "Starlette":
    """The page as an ASGI app that answers nobody but itself.

    Args:
        session: the review.
        root: the folder of the photos; nothing else is read.
        draw_map: see `DrawMap`.
        by: who answers.
        host, port: where it is served.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    hosts = hosts_of(host, port)
    headers = {name.decode(): value.decode() for name, value in safe_headers("")}

    async def own_requests_only(request: "Request", answer: Any) -> "Response":
        problem = foreign({name.lower(): value for name, value in request.headers.items()}, hosts, port)
        size = request.headers.get("content-length", "none" if request.method == "POST" else "0")
        if problem is not None:
            response: Response = PlainTextResponse(problem, 403)
        elif not size.isdecimal() or int(size) > _LARGEST_BODY:
            response = PlainTextResponse("too large", 413)
        else:
            response = await answer(request)
        response.headers.update(headers)
        return response

    page = _Page(session, root, draw_map, by)
    return Starlette(
        routes=[
            *(Route(f"/{path}", page.static) for path in _STATIC),
            Route("/state", page.state),
            Route("/next", page.next),
            Route("/grid", page.grid),
            Route("/photo/{row:int}", page.photo),
            Route("/map/{row:int}/{column:int}", page.map),
            Route("/answers", page.answers, methods=["POST"]),
            Route("/undo", page.undo, methods=["POST"]),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=own_requests_only)],
    )


class _Page:
    """The handlers. Those that are no coroutines run in Starlette's threads."""

    def __init__(self, session: Session, root: Path, draw_map: DrawMap, by: str) -> None:
        self.session, self.root, self.by = session, root, by
        self._draw_map = draw_map
        self._photo = lru_cache(_PHOTOS_KEPT)(self._read_photo)

    def static(self, request: "Request") -> "Response":
        from starlette.responses import Response

        name = _STATIC[request.url.path.removeprefix("/")]
        content = (resources.files(__package__) / "page" / name).read_bytes()
        return Response(content, media_type=_TYPES[Path(name).suffix])

    def state(self, request: "Request") -> "Response":
        labels = [{"key": label.key, "text": label.text} for label in self.session.labels]
        return _json({"folder": self.root.resolve().name, "labels": labels, "progress": self.session.progress()})

    def next(self, request: "Request") -> "Response":
        held = [int(row) for row in request.query_params.get("held", "").split(",") if row.isdecimal()]
        return _json({"asked": [self._shown(one) for one in self.session.next(_count(request), held)]})

    def grid(self, request: "Request") -> "Response":
        column = request.query_params.get("label", "")
        if not column.isdecimal() or int(column) >= len(self.session.labels):
            return _refused("there is no such label", 404)
        return _json({"asked": [self._shown(one) for one in self.session.for_label(int(column), _count(request))]})

    def photo(self, request: "Request") -> "Response":
        from starlette.responses import Response

        row, longest = request.path_params["row"], request.query_params.get("longest", "1024")
        # A page that was opened before photos were added or removed has other numbers.
        if row >= len(self.session.paths) or not longest.isdecimal() or not self._knows(request):
            return _refused("there is no such photo", 404)
        try:
            content = self._photo(row, min(max(int(longest), 16), _LARGEST_PHOTO))
        except UserError as error:
            return _refused(str(error), 404)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    def map(self, request: "Request") -> "Response":
        from starlette.responses import Response

        row, column = request.path_params["row"], request.path_params["column"]
        if row >= len(self.session.paths) or column >= len(self.session.labels) or not self._knows(request):
            return _refused("there is no such photo", 404)
        try:
            drawn = self._draw_map(row, column)
        except UserError as error:
            return _refused(str(error), 404)
        if drawn is None:
            return _refused("this model looks at a photo as a whole: it has no maps", 404)
        return Response(drawn, media_type="image/jpeg", headers={"cache-control": "no-store"})

    async def answers(self, request: "Request") -> "Response":
        return await self._changing(request, _SentTogether, self._keep)

    async def undo(self, request: "Request") -> "Response":
        return await self._changing(request, _TakenBack, self._take_back)

    async def _changing(self, request: "Request", kind: type[BaseModel], do: Callable[[Any], Any]) -> "Response":
        from starlette.concurrency import run_in_threadpool

        try:
            sent = kind.model_validate_json(await request.body())
        except ValidationError as error:
            return _refused(f"not an answer ({error.errors()[0]['msg']})", 400)
        try:
            return _json(await run_in_threadpool(do, sent))
        except UserError as error:
            # The page keeps what it has sent, and tries again.
            return _refused(str(error), 507)

    def _keep(self, sent: _SentTogether) -> dict[str, Any]:
        for one in sent.answers:
            self.session.add(Answer(by=self.by, **one.model_dump()))
        return {"progress": self.session.progress()}

    def _take_back(self, sent: _TakenBack) -> dict[str, Any]:
        last = self.session.last()
        if not sent.ids and last is None:
            return {"progress": self.session.progress(), "again": None}
        self.session.undo(sent.ids or [last.id] if last else sent.ids, self.by)
        again = None if sent.ids or last is None else self._again(last)
        return {"progress": self.session.progress(), "again": again}

    def _knows(self, request: "Request") -> bool:
        return request.query_params.get("of") == self.session.identity

    def _again(self, answer: Answer) -> dict[str, Any] | None:
        found = self.session.asked_again(answer)
        return None if found is None else {**self._shown(found), "marks": answer.marks}

    def _shown(self, asked: Asked) -> dict[str, Any]:
        session = self.session
        keys = [label.key for label in session.labels]
        marks = session.marks_of(asked.row)
        if session.given is not None:
            given = dict(zip(keys, session.given[asked.row].tolist(), strict=True))
            marks = {key: mark for key, mark in given.items() if mark >= 0} | marks
        return {
            "row": asked.row,
            "name": session.paths[asked.row],
            "chosen": asked.chosen,
            "version": asked.version,
            "suggested": None if asked.probabilities is None else [round(float(p), 4) for p in asked.probabilities],
            "marks": marks,
        }

    def _read_photo(self, row: int, longest: int) -> bytes:
        buffer = io.BytesIO()
        small(load_image(self.root / self.session.paths[row], longest), longest).save(buffer, "JPEG", quality=85)
        return buffer.getvalue()


def _count(request: "Request") -> int:
    count = request.query_params.get("count", "6")
    return min(int(count), _AT_ONCE) if count.isdecimal() else 6


def _json(content: Any) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse(content, headers={"cache-control": "no-store"})


def _refused(reason: str, status: int) -> "Response":
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(reason, status)
