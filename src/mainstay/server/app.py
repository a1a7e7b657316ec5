"""The data plane's HTTP application, in granian's RSGI form: a dictionary of routes and a handler for each."""

from __future__ import annotations

import logging
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol
from urllib.parse import quote

import msgspec

from mainstay.decision.outcomes import BrokenReport, OutcomeReader
from mainstay.decision.service import Overloaded
from mainstay.errors import NOT_READ, MainstayError
from mainstay.intake.pushing import MAX_CALL_BYTES, BrokenEvents, Full, call_digest, read_events
from mainstay.intake.pushing import MAX_KEY_CHARACTERS as MAX_IDEMPOTENCY_CHARACTERS
from mainstay.intake.state import states
from mainstay.lake.lagging import standing as lake_standing
from mainstay.ledger.journal import Unrecordable
from mainstay.server import metrics, oip
from mainstay.server.inboxes import Inboxes
from mainstay.server.openapi import describe
from mainstay.server.problem import MEDIA_TYPE as PROBLEM
from mainstay.server.problem import problem, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mainstay.authority.keys import KeyRing, Principal, Verb
    from mainstay.authority.schema import Action
    from mainstay.capability.sources import Push
    from mainstay.decision.path import DecisionPath
    from mainstay.decision.plan import Plan
    from mainstay.decision.service import Pending, Service
    from mainstay.server.metrics import Counts
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.server")

Headers = list[tuple[str, str]]

JSON: Headers = [("content-type", "application/json")]
LINES: Headers = [("content-type", "application/x-ndjson")]
PROBLEM_JSON: Headers = [("content-type", PROBLEM)]
BATCH_FACTOR = 64  # a batch's body may be this many times a single decision's
RETRY: Headers = [("retry-after", "1")]
RETRY_LATER: Headers = [("retry-after", "10")]

ACTIONS: dict[Verb, Action] = {
    "decide": "call",
    "report": "report",
    "push": "push",
    "read": "see",
}  # what a policy calls them

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
        self.headers: Headers = [] if headers is None else headers
        self.document = problem(status, name, title, detail)


class Caller:
    """Who calls, their key's id as it stands in records, and what they were found to be allowed."""

    __slots__ = ("allowed", "key_id", "principal")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.key_id = principal.key_id.encode()
        self.allowed: set[tuple[Verb, Service]] = set()


class Route(NamedTuple):
    """One method of one path."""

    method: str
    handle: Callable[[HTTPScope, HTTPProtocol, Any], Awaitable[None]]
    subject: Any = None


class PushedSource(NamedTuple):
    """A source of a capability that takes events."""

    service: Service
    name: str
    declared: Push


class InferenceModel(NamedTuple):
    """A capability as the Open Inference Protocol names it."""

    service: Service
    signature: oip.OIPSignature
    plan: Plan | None  # the version that was asked for by name; None: as keys are routed


class Application:
    """Answers HTTP for one worker."""

    def __init__(
        self,
        workspace: Workspace,
        path: DecisionPath,
        counts: Counts,
        read_counts: Callable[[], Counts],
        *,
        closed: type[Exception] = EOFError,
    ) -> None:
        """`closed` is what a protocol raises whose caller went away before the body was whole."""
        self._workspace = workspace
        self._path = path
        self._counts = counts
        self._read_counts = read_counts  # the sum over all workers
        self._closed = closed
        self._keys: KeyRing | None = None
        self._known: dict[str, Caller] = {}  # by Authorization header; valid keys only, emptied at each refresh
        self._limit = workspace.settings.max_body_bytes
        self._readers: dict[str, OutcomeReader] = {}
        self._inboxes = Inboxes(path.loop, workspace.data)
        self._openapi: bytes | None = None
        self.draining = False
        self._fixed = {
            "/health/live": Route("GET", self._live, b'{"status":"live"}'),
            "/health/ready": Route("GET", self._ready, b'{"status":"ready"}'),
            "/metrics": Route("GET", self._metrics),
            "/openapi.json": Route("GET", self._describe),
            "/v2": Route("GET", self._tell_server),
            "/v2/health/live": Route("GET", self._live, oip.server_live()),
            "/v2/health/ready": Route("GET", self._ready, oip.server_ready()),
        }
        self._routes: dict[str, Route] = dict(self._fixed)

    def trust(self, keys: KeyRing) -> None:
        """Take these API keys from now on."""
        self._keys = keys
        self._known.clear()

    def forget_callers(self) -> None:
        """Look every key up again, so that one that has expired is noticed."""
        self._known.clear()

    def route(self) -> None:
        """Answer for the services that the decision path has now."""
        self._openapi = None
        services = self._path.services
        self._readers = {
            name: OutcomeReader(self._workspace, service.release.production.declared)
            for name, service in services.items()
        }
        routes = dict(self._fixed)
        for name, service in services.items():
            base = f"/v1/capabilities/{name}"
            routes[f"{base}/decisions"] = Route("POST", self._decide, service)
            routes[f"{base}/decisions/batch"] = Route("POST", self._decide_many, service)
            routes[f"{base}/outcomes"] = Route("POST", self._report, service)
            for source in service.release.production.declared.capability.sources:
                if source.push is not None:
                    subject = PushedSource(service, source.name, source.push)
                    routes[f"{base}/sources/{source.name}/events"] = Route("POST", self._push, subject)
            routes |= self._inference_routes(name, service)
        self._routes = routes

    def _inference_routes(self, name: str, service: Service) -> dict[str, Route]:
        """The Open Inference Protocol: the capability by its name, as keys are routed, and each version of it."""
        release = service.release
        base = f"/v2/models/{name}"
        named: dict[str, tuple[Plan, Plan | None]] = {base: (release.production, None)}
        for plan in (release.production, release.canary):
            if plan is not None:
                named |= {f"{base}/versions/{spelt}": (plan, plan) for spelt in (plan.digest, quote(plan.digest))}
        routes = {}
        for path, (described, fixed) in named.items():
            model = InferenceModel(service, oip.compile_signature(described.declared, described.digest), fixed)
            routes[path] = Route("GET", self._tell_model, (model, oip.model_metadata(model.signature)))
            routes[f"{path}/ready"] = Route("GET", self._tell_model, (model, oip.model_ready(model.signature)))
            routes[f"{path}/infer"] = Route("POST", self._infer, model)
        return routes

    async def __rsgi__(self, scope: HTTPScope, protocol: HTTPProtocol) -> None:
        try:
            route = self._routes.get(scope.path)
            if route is None or route.method != scope.method:
                self._no_such_route(scope, route)
            else:
                await route.handle(scope, protocol, route.subject)
        except Refused as refused:
            self._counts.count_refused_call(refused.status)
            if _is_inference(scope.path):
                protocol.response_bytes(*oip.write_error(refused.status, str(refused), refused.headers))
            else:
                protocol.response_bytes(refused.status, PROBLEM_JSON + refused.headers, refused.document)
        except Exception:  # a fault of ours must leave the caller an answer, and us a trace
            logger.exception("a call failed: method=%s path=%s", scope.method, scope.path)
            self._counts.count_refused_call(500)
            if _is_inference(scope.path):
                protocol.response_bytes(*oip.write_error(500, FAULT))
            else:
                protocol.response_bytes(500, PROBLEM_JSON, _FAULT)

    # The decision path's face.

    async def _decide(self, scope: HTTPScope, protocol: HTTPProtocol, service: Service) -> None:
        caller = self._identify(scope, "decide", service)  # 1
        if (
            service.sheds
        ):  # 2: before the body is read, and from a ready answer, so that turning a call away costs little
            self._counts.count_refused_call(429)
            protocol.response_bytes(429, _SHED_HEADERS, _SHED)
            return
        try:
            body = await self._body(scope, protocol, self._limit)
            if service.retired:
                service = self._successor(scope)
                caller = self._identify(scope, "decide", service)
            item = service.decide(caller.key_id, body)
        except Overloaded as overloaded:
            raise _overloaded(overloaded) from None
        except Unrecordable as error:
            raise _unrecorded(str(error)) from None
        await item.gate.opened
        if item.answer is None:
            raise _unrecorded("the decision could not be recorded, so it is not given")
        verdict = item.verdict
        if verdict is not None and verdict.outcome == "refused":
            status, document = refusal(verdict.reasons[0], item.answer)
            protocol.response_bytes(status, PROBLEM_JSON + RETRY if status in {429, 503} else PROBLEM_JSON, document)
        else:
            protocol.response_bytes(200, JSON, item.answer)

    async def _decide_many(self, scope: HTTPScope, protocol: HTTPProtocol, service: Service) -> None:
        caller = self._identify(scope, "decide", service)  # 1
        lines = scope.headers.get("content-type", "").partition(";")[0].strip() == "application/x-ndjson"
        try:
            service.check_admission()  # 2
            body = await self._body(scope, protocol, self._limit * BATCH_FACTOR)
            if service.retired:
                service = self._successor(scope)
                caller = self._identify(scope, "decide", service)
            gate, items = service.decide_many(caller.key_id, body, lines=lines)
        except Overloaded as overloaded:
            raise _overloaded(overloaded) from None
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

    async def _report(self, scope: HTTPScope, protocol: HTTPProtocol, service: Service) -> None:
        caller = self._identify(scope, "report", service)
        capability = service.release.capability.name
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

    async def _push(self, scope: HTTPScope, protocol: HTTPProtocol, source: PushedSource) -> None:
        caller = self._identify(scope, "push", source.service)
        key = scope.headers.get("idempotency-key")
        if key is not None and not (key.isascii() and key.isprintable() and len(key) <= MAX_IDEMPOTENCY_CHARACTERS):
            detail = f"expected an Idempotency-Key of at most {MAX_IDEMPOTENCY_CHARACTERS} printable ASCII characters"
            raise _no_events(detail)
        lines = scope.headers.get("content-type", "").partition(";")[0].strip() == "application/x-ndjson"
        capability, most = source.service.release.capability.name, source.declared.max_waiting_bytes
        try:
            inbox = self._inboxes.of(capability, source.name)
            await inbox.check_room(most)
            body = await self._body(scope, protocol, min(self._limit * BATCH_FACTOR, MAX_CALL_BYTES, most))
            if source.service.retired:
                source = self._successor(scope)
                caller = self._identify(scope, "push", source.service)
            events = read_events(body, lines=lines)
            if events.number:
                await inbox.check_room(most, len(body))
                await inbox.take(events, call_digest(caller.key_id, key, events))
        except BrokenEvents as broken:
            raise _no_events(str(broken)) from None
        except Full as full:
            raise Refused(503, "too-much-waits", "Too many events wait for the table", str(full), RETRY_LATER) from None
        except (Unrecordable, OSError) as error:
            logger.error("events cannot be kept: capability=%s source=%s error=%s", capability, source.name, error)  # noqa: TRY400 - says all
            detail = "the disk takes nothing now, or too slowly"
            raise Refused(503, "unrecorded", "The events cannot be kept", detail, RETRY) from None
        self._counts.count_events(capability, source.name, events.number)
        protocol.response_bytes(202, JSON, _encode({"accepted": events.number}))

    # The Open Inference Protocol's face.

    async def _tell_server(self, scope: HTTPScope, protocol: HTTPProtocol, _subject: Any) -> None:
        self._caller(scope)
        protocol.response_bytes(200, JSON, oip.server_metadata())

    async def _tell_model(
        self, scope: HTTPScope, protocol: HTTPProtocol, subject: tuple[InferenceModel, bytes]
    ) -> None:
        model, document = subject
        self._identify(scope, "decide", model.service)
        protocol.response_bytes(200, JSON, document)

    async def _infer(self, scope: HTTPScope, protocol: HTTPProtocol, model: InferenceModel) -> None:
        caller = self._identify(scope, "decide", model.service)  # 1
        try:
            model.service.check_admission()  # 2
            body = await self._body(scope, protocol, self._limit * BATCH_FACTOR)
            if model.service.retired:
                model = self._successor(scope)
                caller = self._identify(scope, "decide", model.service)
            request = oip.read_request(model.signature, scope.headers, body)
            gate, items = model.service.decide_each(caller.key_id, request.calls, plan=model.plan)
        except Overloaded as overloaded:
            raise _overloaded(overloaded) from None
        except Unrecordable as error:
            raise _unrecorded(str(error)) from None
        except oip.NotInferred as error:
            raise Refused(error.status, "malformed-input", "Not of the protocol", str(error)) from None
        await gate.opened
        answers = [item.answer for item in items if item.answer is not None]
        if len(answers) < len(items):
            raise _unrecorded(f"{len(items) - len(answers)} of {len(items)} decisions could not be recorded")
        protocol.response_bytes(*oip.write_response(model.signature, request, answers))

    # What is said of the worker itself.

    async def _live(self, _scope: HTTPScope, protocol: HTTPProtocol, subject: Any) -> None:
        protocol.response_bytes(200, JSON, subject)

    async def _ready(self, _scope: HTTPScope, protocol: HTTPProtocol, subject: Any) -> None:
        reason = self._not_ready()
        if reason:
            raise Refused(503, "not-ready", "This worker takes no decisions now", reason, RETRY)
        protocol.response_bytes(200, JSON, subject)

    async def _metrics(self, scope: HTTPScope, protocol: HTTPProtocol, _subject: Any) -> None:
        if "read" not in self._caller(scope).principal.verbs:
            raise Refused(403, "forbidden", "The key does not allow this call", "this key may not read")
        try:
            export = lake_standing(self._workspace)
        except (MainstayError, OSError):  # the log cannot be read now; what else is counted can
            export = None
        feeds = states(self._workspace.data)
        document = metrics.render(self._read_counts(), in_flight=self._path.in_flight, export=export, feeds=feeds)
        protocol.response_bytes(200, [("content-type", metrics.MEDIA_TYPE)], document)

    async def _describe(self, scope: HTTPScope, protocol: HTTPProtocol, _subject: Any) -> None:
        self._caller(scope)
        if self._openapi is None:
            self._openapi = _encode(describe([service.release for service in self._path.services.values()]))
        protocol.response_bytes(200, JSON, self._openapi)

    async def close(self) -> None:
        """Answer the pushes that are under way, and stop taking any."""
        await self._inboxes.close(self._workspace.settings.drain_seconds)

    def _not_ready(self) -> str:
        if self.draining:
            return "draining: it ends once what it accepted is answered"
        if self._keys is None:
            return "no API keys have been loaded"
        if not self._path.journal.healthy:
            return "the ledger cannot be written: its disk is full or failing"
        return ""

    # 1 identify

    def _identify(self, scope: HTTPScope, verb: Verb, service: Service) -> Caller:
        """Who calls. Raises Refused unless their key and the capability's policies let them do `verb`."""
        caller = self._caller(scope)
        if (verb, service) in caller.allowed:
            return caller
        name = service.release.capability.name
        if not caller.principal.may(verb, name):
            raise Refused(403, "forbidden", "The key does not allow this call", f"this key may not {verb} {name}")
        denial = service.release.production.authority.may(caller.principal, ACTIONS[verb])
        if denial is not None:
            detail = f"{name} does not let this key {verb}: {denial.policy}"
            raise Refused(403, "forbidden", "A policy does not allow this call", detail)
        caller.allowed.add((verb, service))
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
        caller = self._known[header] = Caller(principal)
        return caller

    def _successor(self, scope: HTTPScope) -> Any:
        """What the path of a call leads to now: another release came into force while its body did."""
        route = self._routes.get(scope.path)
        if route is None:
            self._no_such_route(scope, None)
        return route.subject

    def _no_such_route(self, scope: HTTPScope, other: Route | None) -> NoReturn:
        if scope.path.startswith(("/v1/", "/v2/models")):
            self._caller(scope)  # a stranger does not learn which capabilities exist
        if other is not None:
            detail = f"expected {other.method}, found {scope.method}"
            raise Refused(405, "method-not-allowed", "The path takes another method", detail, [("allow", other.method)])
        parts = scope.path.split("/")
        if (
            parts[1:3] in (["v1", "capabilities"], ["v2", "models"])
            and len(parts) > 3
            and parts[3] not in self._path.services
        ):
            detail = f"nothing named {parts[3][:80]} is in production"
            raise Refused(404, "no-such-capability", "There is no such capability", detail)
        raise Refused(404, "not-found", "There is nothing at this path", f"{scope.path[:200]} is not served here")

    async def _body(self, scope: HTTPScope, protocol: HTTPProtocol, limit: int) -> bytes:
        """The body of a call, whole. Raises Refused when it has more than `limit` bytes, or breaks off."""
        declared = scope.headers.get("content-length")
        if declared is not None:
            if not declared.isdigit() or int(declared) > limit:
                raise _too_large(limit)
            try:
                return await protocol()
            except self._closed:
                raise _broken_off() from None
        chunks, size, ends = [], 0, 0
        async for chunk in protocol:
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(bytes(chunk))
            ends += not chunk
        if ends > 1:  # granian gives an empty chunk at the end, and another where the body broke off or had trailers
            raise _broken_off()
        return b"".join(chunks)


def observe_into(counts: Counts) -> Callable[[Pending, float], None]:
    """The observer that counts every decision that ends."""

    def observe(item: Pending, seconds: float) -> None:
        verdict = item.verdict
        if verdict is None or item.answer is None:
            return
        reason = verdict.reasons[0].code if verdict.reasons else metrics.NO_REASON
        counts.count(item.plan.capability.name, item.plan.stage, verdict.outcome, reason, seconds)

    return observe


FAULT = "it was logged; nothing is decided"
_SHED = problem(429, "overloaded", "Too many decisions wait", "more wait than the model can take in time")
_SHED_HEADERS = PROBLEM_JSON + RETRY
_FAULT = problem(500, "fault", "Something is wrong with this service", FAULT)


def _is_inference(path: str) -> bool:
    """Whether errors are told as the Open Inference Protocol tells them."""
    return path == "/v2" or path.startswith("/v2/")


def _overloaded(overloaded: Overloaded) -> Refused:
    retry = [("retry-after", str(max(1, ceil(overloaded.retry_seconds))))]
    return Refused(429, "overloaded", "Too many decisions wait", str(overloaded), retry)


def _unrecorded(detail: str) -> Refused:
    return Refused(503, "unrecorded", "Nothing can be recorded, so nothing is decided", detail, RETRY)


def _no_events(detail: str) -> Refused:
    return Refused(
        400, "malformed-input", "The call is not of the documented form; none of its events is taken", detail
    )


def _too_large(limit: int) -> Refused:
    return Refused(413, "too-large", "The body is too large", f"expected at most {limit} bytes")


def _broken_off() -> Refused:
    detail = "expected chunks to the end, and no trailers; or as many bytes as Content-Length says"
    return Refused(400, "broken-body", "The body did not come whole", detail)
