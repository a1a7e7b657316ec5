"""Deciding about a piece of a table: the steps of the decision path over whole columns, up to the record.

    validate   the contract's rules over columns; what breaks one goes by the slow lane
    protect    what may be recorded of each input
    route      by key, or by the row's number
    run        the graph, over columns
    guard      outputs, p-values, confidences and policies, each at once
    record     the body of each row, salted and hashed: what the leaf will say of it

A row that is not simply answered is decided by the service itself (`slow_lane`). It depends on nothing but the piece,
the release and what the workspace remembers, so that it may be done again, here or elsewhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import numpy as np

from mainstay.batch.calls import CallMaker
from mainstay.batch.slow_lane import SlowLane
from mainstay.batch.types import Decided
from mainstay.catalog.releases import history
from mainstay.catalog.versions import open_version
from mainstay.decision.guard_columns import answer_many
from mainstay.decision.plan import compile_release
from mainstay.decision.record import NOTHING, NULL, told, write_body
from mainstay.decision.routing import Router
from mainstay.decision.runner import load_graph
from mainstay.decision.types import MAX_KEY_CHARACTERS
from mainstay.errors import NOT_READ, Failed
from mainstay.ledger.entry import SALT_BYTES
from mainstay.privacy.protection import ProtectionFailed
from mainstay.signing import load_verifier
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mainstay.batch.calls import Calls, Values
    from mainstay.batch.slow_lane import Settled
    from mainstay.batch.types import Piece
    from mainstay.decision.guard_columns import Answers
    from mainstay.decision.plan import Plan, ReleasePlan
    from mainstay.decision.types import Hold
    from mainstay.workspace import Workspace

MODEL_ROWS: Final = 2_048  # that run together: enough for the graph, and few enough for the cache
_CALL_BYTES: Final = 64  # what a call has beside its input and its key, at most
_ANSWERED: Final = b"answered"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class Task:
    """What every piece of a run is decided by. Picklable."""

    workspace: Path
    capability: str
    release: int
    principal: str
    batch: str  # the id of the run
    key: str | None  # the field that holds the business key


class _Drafts:
    """What is to be recorded of each row, by position; empty where it is not decided yet."""

    def __init__(self, count: int) -> None:
        self.canary = [False] * count
        self.outcomes = [_ANSWERED] * count
        self.codes = [NOTHING] * count
        self.reasons = [NOTHING] * count
        self.outputs = [NULL] * count
        self.confidences = [NULL] * count
        self.salts = _split(os.urandom(SALT_BYTES * count), SALT_BYTES)
        self.sealed = [b""] * count  # salt and body


class Decider:
    """Decides pieces under one task. An object is for one thread."""

    def __init__(self, task: Task) -> None:
        """Raises Failed, Damaged or InvalidDocument when the release cannot be opened here."""
        self._principal = task.principal.encode()
        self._batch = _encode(task.batch)
        workspace = open_workspace(task.workspace)
        self.release = find_release(workspace, task.capability, task.release)
        production, canary = self.release.production, self.release.canary
        self._arms = {False: _Arm(workspace, production)}
        # A canary with a contract of its own validates by that one: the service does it.
        if canary is not None and canary.manifest.contract.digest == production.manifest.contract.digest:
            self._arms[True] = _Arm(workspace, canary)
        declared = self.release.release.canary
        self._router = None if declared is None else Router(task.capability, declared.percent)
        self._limit = workspace.settings.max_body_bytes
        self._calls = CallMaker(production.declared, task.key)
        self._slow = SlowLane(self.release, workspace.memory, self._limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every model."""
        self._slow.close()

    def decide(self, piece: Piece, held: Hold | None = None) -> Decided:
        """The decisions about a piece, in the order of its rows. `held`: why no model is to be asked.

        Raises Failed when a model does not start.
        """
        calls = self._calls.calls(piece)
        numbers = [*piece.rows, *(number for number, _ in piece.broken)]
        parts = [*piece.parts, *[piece.parts[0] if piece.parts else 1] * len(piece.broken)]
        sources = self._sources(piece, parts, numbers)
        drafts = _Drafts(len(numbers))
        drafts.canary = self._routes(calls.keys, numbers)
        if held is None:
            self._answer(calls, drafts, sources)
        self._settle(calls, drafts, sources, held)
        decided = _sealed(piece.origin, parts, numbers, calls.keys, drafts)
        return _in_order(decided) if piece.broken else decided

    def _sources(self, piece: Piece, parts: Sequence[int], numbers: Sequence[int]) -> list[bytes]:
        """Where each row stands, as its record says."""
        name = _encode(piece.origin)
        if piece.in_table:
            head = b'{"batch":%b,"table":%b,"item":' % (self._batch, name)
            return [b'%b%d,"row":%d}' % (head, *each) for each in zip(parts, numbers, strict=True)]
        head = b'{"batch":%b,"file":%b,"row":' % (self._batch, name)
        return [b"%b%d}" % (head, number) for number in numbers]

    def _routes(self, keys: Sequence[bytes], numbers: Sequence[int]) -> list[bool]:
        router = self._router
        if router is None:
            return [False] * len(numbers)
        return [
            router.row_to_canary(number) if key is NULL else router.to_canary(key)
            for key, number in zip(keys, numbers, strict=True)
        ]

    # The fast lane.

    def _answer(self, calls: Calls, drafts: _Drafts, sources: Sequence[bytes]) -> None:
        for is_canary, arm in self._arms.items():
            places = [at for at, place in enumerate(calls.good) if drafts.canary[place] is is_canary]
            if arm.model is None or not places:
                continue
            values = calls.values if len(places) == len(calls.good) else calls.values.of(places)
            for start in range(0, len(places), MODEL_ROWS):
                part = [calls.good[at] for at in places[start : start + MODEL_ROWS]]
                answers = arm.answers(values.cut(start, start + MODEL_ROWS))
                if answers is not None:
                    self._draft(arm.plan, part, answers, calls, drafts, sources)

    def _draft(
        self,
        plan: Plan,
        places: Sequence[int],
        answers: Answers,
        calls: Calls,
        drafts: _Drafts,
        sources: Sequence[bytes],
    ) -> None:
        """The bodies of those that are simply answered, where their calls are such as the service takes."""
        given, keys, limit = calls.inputs, calls.keys, self._limit - _CALL_BYTES
        protected = plan.protector is not None
        recorded = answers.outputs if answers.recorded is None else answers.recorded
        head, join = b'{"principal":"' + self._principal + b'","key":', b"".join
        columns = (places, answers.outputs, recorded, answers.confidences, answers.novelties)
        for place, output, shown, confidence, novelty in zip(*columns, strict=True):
            if output is None or shown is None:
                continue
            raw, key = given[place], keys[place]
            if len(raw) + len(key) > limit or (len(key) > MAX_KEY_CHARACTERS and _is_long(key)):
                continue
            if protected:
                try:
                    raw = bytes(plan.given(raw))
                except ProtectionFailed:
                    continue
            answer = (b',"output":', shown, b',"confidence":', confidence, b',"novelty":', novelty)
            tail = (b',"details":null,"source":', sources[place], b"}")
            drafts.sealed[place] = join((drafts.salts[place], head, key, b',"input":', raw, *answer, *tail))
            drafts.outputs[place] = output
            drafts.confidences[place] = confidence

    # The slow lane.

    def _settle(self, calls: Calls, drafts: _Drafts, sources: Sequence[bytes], held: Hold | None) -> None:
        """Have the service decide the others."""
        places = [place for place, sealed in enumerate(drafts.sealed) if not sealed]
        if not places:
            return
        made = [(_call(calls.inputs[place], calls.keys[place]), drafts.canary[place]) for place in places]
        for place, settled in zip(places, self._slow.decide(made, held), strict=True):
            self._take(place, settled, drafts, sources[place])
            calls.keys[place] = settled.key

    def _take(self, place: int, settled: Settled, drafts: _Drafts, source: bytes) -> None:
        verdict = settled.verdict
        drafts.canary[place] = settled.canary
        drafts.outcomes[place] = verdict.outcome.encode()
        drafts.codes[place], drafts.reasons[place], _ = told(verdict)
        drafts.outputs[place] = verdict.output
        drafts.confidences[place] = verdict.confidence
        body = write_body(self._principal, settled.key, settled.given, verdict, source)
        drafts.sealed[place] = drafts.salts[place] + body


class _Arm:
    """One version of the release, with its graph where it runs in this process."""

    def __init__(self, workspace: Workspace, plan: Plan) -> None:
        self.plan = plan
        in_process = plan.manifest.runtime == "onnx"
        self.model = load_graph(open_version(workspace.versions, plan.digest), plan.declared) if in_process else None

    def answers(self, values: Values) -> Answers | None:
        """What the rows are answered with; None when the graph does not take them together, or not at all."""
        assert self.model is not None
        novelty = self.plan.novelty
        try:
            if values.columns is not None:
                given = self.model.run_columns(values.columns)
                p_values = None if novelty is None else novelty.p_values_of_columns(values.columns)
            else:
                given = self.model.run(values.rows())
                p_values = None if novelty is None else novelty.p_values(values.rows())
        except Exception:  # noqa: BLE001 - whatever a graph raises: the service tries each row alone, and says what it was
            return None
        return answer_many(self.plan, given, p_values, values.rows)


def find_release(workspace: Workspace, capability: str, number: int) -> ReleasePlan:
    """A release by its number, opened. Raises Failed when there is none, and as `compile_release` does."""
    for release in history(workspace.releases, capability, load_verifier(workspace.keys)):
        if release.number == number:
            return compile_release(workspace, release)
    raise Failed(f"{capability}: expected release {number} in {workspace.releases}, found none")


def _call(given: bytes, key: bytes) -> bytes:
    """The call of a row. What is no JSON stays alone: beside a key it might be taken for something else."""
    try:
        _decode(given)
    except NOT_READ:
        return given
    return b'{"input":%b}' % given if key is NULL else b'{"input":%b,"key":%b}' % (given, key)


def _is_long(key: bytes) -> bool:
    return key is not NULL and len(_decode(key)) > MAX_KEY_CHARACTERS


def _split(content: bytes, size: int) -> list[bytes]:
    """Pieces of `size` bytes."""
    pieces: list[bytes] = np.frombuffer(content, f"V{size}").tolist()
    return pieces


def _sealed(origin: str, parts: list[int], numbers: list[int], keys: list[bytes], drafts: _Drafts) -> Decided:
    return Decided(
        origin,
        parts,
        numbers,
        keys,
        drafts.canary,
        drafts.outcomes,
        drafts.codes,
        drafts.reasons,
        drafts.outputs,
        drafts.confidences,
        drafts.sealed,
        [sha256(each).digest() for each in drafts.sealed],
    )


def _in_order(decided: Decided) -> Decided:
    """By the numbers of the rows."""
    order = sorted(range(len(decided.rows)), key=decided.rows.__getitem__)
    pick: Any = itemgetter(*order) if len(order) > 1 else partial(list)
    lists: list[Any] = [list(pick(each)) for each in decided[1:]]
    return Decided(decided.origin, *lists)
