"""The data plane's HTTP application, in granian's RSGI form: a dictionary of routes and a handler for each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import msgspec

from mainstay.decision.outcomes import BrokenReport, OutcomeReader
from mainstay.decision.path import NOT_READ, Overloaded
from mainstay.ledger.journal import Unrecordable
from mainstay.server import metrics
from mainstay.server.openapi import describe
from mainstay.server.problem import MEDIA_TYPE as PROBLEM
from mainstay.server.problem import problem, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mainstay.authority.keys import KeyRing, Principal, Verb
    from mainstay.decision.path import DecisionPath, Pending, Service
    from mainstay.decision.plan import Plan
    from mainstay.server.metrics import Counts
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.server")

Headers = list[tuple[str, str]]

JSON: Headers = [("content-type", "application/json")]
LINES: Headers = [("content-type", "application/x-ndjson")]
PROBLEM_JSON: Headers = [("content-type", PROBLEM)]
BATCH_FACTOR = 64  # a batch's body may be this many times a single decision's
RETRY_SECONDS = "1"

_encode = msgspec.json.Encoder().encode


class HTTPScope(Protocol):
    """What granian says of a request."""

    method: str
    path: str
    headers: Any


class HTTPProtocol(Protocol):
    """What granian gives to read a request and answer it."""

    def __call__(self) -> Awaitable[bytes]: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None: ...


class Refused(Exception):
    """The call makes no decision and leaves no record."""

    def __init__(self, status: int, name: str, title: str, detail: str, headers: Headers | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = PROBLEM_JSON if headers is None else PROBLEM_JSON + headers
        self.document = problem(status, name, title, detail)


class Caller(NamedTuple):
    """Who calls, and their key's id as it stands in records."""

    principal: Principal
    key_id: bytes


class Route(NamedTuple):
    """One method of one path."""

    method: str
    handle: Callable[[HTTPScope, HTTPProtocol, Any], Awaitable[None]]
    subject: Any = None


class Application:
    """Answers HTTP for one worker."""

    def __init__(
        self, workspace: Workspace, path: DecisionPath, counts: Counts, read_counts: Callable[[], Counts]
    ) -> None:
        self._workspace = workspace
        self._path = path
        self._counts = counts
        self._read_counts = read_counts  # the sum over all workers
        self._keys: KeyRing | None = None
        self._known: dict[str, Caller] = {}  # by Authorization header; valid keys only, emptied at each refresh
        self._limit = workspace.settings.max_body_bytes
        self._readers: dict[str, OutcomeReader] = {}
        self._openapi: bytes | None = None
        self.draining = False
        self._fixed = {
            "/health/live": Route("GET", self._live),
            "/health/ready": Route("GET", self._ready),
            "/metrics": Route("GET", self._metrics),
            "/openapi.json": Route("GET", self._describe),
        }
        self._routes: dict[str, Route] = dict(self._fixed)

    def trust(self, keys: KeyRing) -> None:
        """Take these API keys from now on."""
        self._keys = keys
        self._known.clear()

    def forget_callers(self) -> None:
        """Look every key up again, so that one that has expired is noticed."""
        self._known.clear()

    def serve(self, plans: dict[str, Plan]) -> None:
        """Take these releases from now on."""
        self._path.serve(plans)
        self._openapi = None
        self._readers = {name: OutcomeReader(self._workspace, plan.declared) for name, plan in plans.items()}
        routes = dict(self._fixed)
        for name, service in self._path.services.items():
            base = f"/v1/capabilities/{name}"
            routes[f"{base}/decisions"] = Route("POST", self._decide, service)
            routes[f"{base}/decisions/batch"] = Route("POST", self._decide_many, service)
            routes[f"{base}/outcomes"] = Route("POST", self._report, name)
        self._routes = routes

    async def __rsgi__(self, scope: HTTPScope, protocol: HTTPProtocol) -> None:
        try:
            route = self._routes.get(scope.path)
            if route is None or route.method != scope.method:
                self._no_such_route(scope, route)
            else:
                await route.handle(scope, protocol, route.subject)
        except Refused as refused:
            self._counts.count_refused_call(refused.status)
            protocol.response_bytes(refused.status, refused.headers, refused.document)
        except Exception:  # a fault of ours must leave the caller an answer, and us a trace
            logger.exception("a call failed: method=%s path=%s", scope.method, scope.path)
            self._counts.count_refused_call(500)
            protocol.response_bytes(500, PROBLEM_JSON, _FAULT)

    # The decision path's face.

    async def _decide(self, scope: HTTPScope, protocol: HTTPProtocol, service: Service) -> None:
        caller = self._identify(scope, "decide", service.plan.capability.name)  # 1
        body = await self._body(scope, protocol, self._limit)
        try:
            item = service.decide(caller.key_id, body)
        except Overloaded:
            raise _overloaded(service) from None
        except Unrecordable as error:
            raise _unrecorded(str(error)) from None
        await item.gate.opened
        if item.answer is None:
            raise _unrecorded("the decision could not be recorded, so it is not given")
        verdict = item.verdict
        if verdict is not None and verdict.outcome == "refused":
            status, document = refusal(verdict.reasons[0], item.answer)
            protocol.response_bytes(status, PROBLEM_JSON, document)
        else:
            protocol.response_bytes(200, JSON, item.answer)

    async def _decide_many(self, scope: HTTPScope, protocol: HTTPProtocol, service: Service) -> None:
        caller = self._identify(scope, "decide", service.plan.capability.name)  # 1
        body = await self._body(scope, protocol, self._limit * BATCH_FACTOR)
        lines = scope.headers.get("content-type", "").partition(";")[0].strip() == "application/x-ndjson"
        try:
            gate, items = service.decide_many(caller.key_id, body, lines=lines)
        except Overloaded:
            raise _overloaded(service) from None
        except Unrecordable as error:
            raise _unrecorded(str(error)) from None
        except NOT_READ as error:
            title = "The call is not of the documented form"
            raise Refused(400, "malformed-input", title, f'expected {{"inputs": [...]}}: {error}') from None
        await gate.opened
        answers = [item.answer for item in items if item.answer is not None]
        if len(answers) < len(items):
            raise _unrecorded(f"{len(items) - len(answers)} of {len(items)} decisions could not be recorded")
        if lines:
            protocol.response_bytes(200, LINES, b"".join(answer + b"\n" for answer in answers))
        else:
            protocol.response_bytes(200, JSON, b'{"decisions":[' + b",".join(answers) + b"]}")

    async def _report(self, scope: HTTPScope, protocol: HTTPProtocol, capability: str) -> None:
        caller = self._identify(scope, "report", capability)
        body = await self._body(scope, protocol, self._limit * BATCH_FACTOR)
        reader = self._readers[capability]
        try:
            reports = reader.read(body)
        except BrokenReport as broken:
            self._counts.count_refused_call(422)
            document = problem(
                422,
                "contract-violation",
                "The outcomes break the rules; none is recorded",
                str(broken),
                violations=broken.violations,
            )
            protocol.response_bytes(422, PROBLEM_JSON, document)
            return
        if not reports:
            protocol.response_bytes(202, JSON, b'{"recorded":0,"receipts":[]}')
            return
        journal = self._path.journal
        try:
            recorded = reader.record(place := journal.next_place(), caller.key_id, reports)
        except Unrecordable as error:
            raise _unrecorded(str(error)) from None
        durable: Any = self._path.loop.create_future()
        journal.submit(place, recorded.framed, len(reports), durable.set_result)
        if await durable is not None:
            raise _unrecorded("the outcomes could not be recorded")
        self._counts.count_outcomes(capability, len(reports))
        protocol.response_bytes(202, JSON, _encode({"recorded": len(reports), "receipts": recorded.receipts}))

    # What is said of the worker itself.

    async def _live(self, _scope: HTTPScope, protocol: HTTPProtocol, _subject: Any) -> None:
        protocol.response_bytes(200, JSON, b'{"status":"live"}')

    async def _ready(self, _scope: HTTPScope, protocol: HTTPProtocol, _subject: Any) -> None:
        reason = self._not_ready()
        if reason:
            raise Refused(503, "not-ready", "This worker takes no decisions now", reason)
        protocol.response_bytes(200, JSON, b'{"status":"ready"}')

    async def _metrics(self, scope: HTTPScope, protocol: HTTPProtocol, _subject: Any) -> None:
        if "read" not in self._caller(scope).principal.verbs:
            raise Refused(403, "forbidden", "The key does not allow this call", "this key may not read")
        document = metrics.render(self._read_counts(), in_flight=self._path.in_flight)
        protocol.response_bytes(200, [("content-type", metrics.MEDIA_TYPE)], document)

    async def _describe(self, scope: HTTPScope, protocol: HTTPProtocol, _subject: Any) -> None:
        self._caller(scope)
        if self._openapi is None:
            self._openapi = _encode(describe([service.plan.declared for service in self._path.services.values()]))
        protocol.response_bytes(200, JSON, self._openapi)

    def _not_ready(self) -> str:
        if self.draining:
            return "draining: it ends once what it accepted is answered"
        if self._keys is None:
            return "no API keys have been loaded"
        if not self._path.journal.healthy:
            return "the ledger cannot be written: its disk is full or failing"
        return ""

    # 1 identify

    def _identify(self, scope: HTTPScope, verb: Verb, capability: str) -> Caller:
        """Who calls. Raises Refused unless they may do `verb` to `capability`."""
        caller = self._caller(scope)
        if not caller.principal.may(verb, capability):
            detail = f"this key may not {verb} {capability}"
            raise Refused(403, "forbidden", "The key does not allow this call", detail)
        return caller

    def _caller(self, scope: HTTPScope) -> Caller:
        """Who calls, whatever they may do. Raises Refused when nobody does."""
        header = scope.headers.get("authorization")
        caller = self._known.get(header) if header is not None else None
        return self._look_up(header or "") if caller is None else caller

    def _look_up(self, header: str) -> Caller:
        scheme, _, token = header.partition(" ")
        principal = None
        if self._keys is not None and scheme.lower() == "bearer":
            principal = self._keys.identify(token.strip())
        if principal is None:
            detail = "expected `Authorization: Bearer KEY` with a key that is known, not expired and not revoked"
            challenge = [("www-authenticate", 'Bearer realm="mainstay"')]
            raise Refused(401, "unauthorized", "The call carries no valid key", detail, challenge)
        caller = self._known[header] = Caller(principal, principal.key_id.encode())
        return caller

    def _no_such_route(self, scope: HTTPScope, other: Route | None) -> NoReturn:
        if scope.path.startswith("/v1/"):
            self._caller(scope)  # a stranger does not learn which capabilities exist
        if other is not None:
            detail = f"expected {other.method}, found {scope.method}"
            raise Refused(405, "method-not-allowed", "The path takes another method", detail, [("allow", other.method)])
        parts = scope.path.split("/")
        if parts[1:3] == ["v1", "capabilities"] and len(parts) > 3 and parts[3] not in self._path.services:
            detail = f"nothing named {parts[3][:80]} is in production"
            raise Refused(404, "no-such-capability", "There is no such capability", detail)
        raise Refused(404, "not-found", "There is nothing at this path", f"{scope.path[:200]} is not served here")

    async def _body(self, scope: HTTPScope, protocol: HTTPProtocol, limit: int) -> bytes:
        """The body of a call, at most `limit` bytes of it."""
        declared = scope.headers.get("content-length")
        if declared is not None:
            if not declared.isdigit() or int(declared) > limit:
                raise _too_large(limit)
            return await protocol()
        chunks, size = [], 0
        async for chunk in protocol:
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(bytes(chunk))
        return b"".join(chunks)


def observe_into(counts: Counts) -> Callable[[Plan, Pending, float], None]:
    """The observer that counts every decision that ends."""

    def observe(plan: Plan, item: Pending, seconds: float) -> None:
        verdict = item.verdict
        if verdict is None or item.answer is None:
            return
        reason = verdict.reasons[0].code if verdict.reasons else metrics.NO_REASON
        counts.count(plan.capability.name, verdict.outcome, reason, seconds)

    return observe


_FAULT = problem(500, "fault", "Something is wrong with this service", "it was logged; nothing is decided")


def _overloaded(service: Service) -> Refused:
    limit = service.plan.capability.limits.waiting
    detail = f"{service.waiting} decisions wait in this worker, and {limit} may"
    return Refused(503, "overloaded", "Too many decisions wait", detail, [("retry-after", RETRY_SECONDS)])


def _unrecorded(detail: str) -> Refused:
    return Refused(
        503, "unrecorded", "Nothing can be recorded, so nothing is decided", detail, [("retry-after", RETRY_SECONDS)]
    )


def _too_large(limit: int) -> Refused:
    return Refused(413, "too-large", "The body is too large", f"expected at most {limit} bytes")
