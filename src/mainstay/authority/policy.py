"""`authority.cedar`: who may do what with a capability, and what it may answer without a person.

Policies are Cedar's, parsed and validated once. What no policy permits is denied, and whatever one forbids; a policy
that fails denies too, where Cedar would only skip it. The deciding policy is named by its `@id`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import cedarpy
import msgspec

from mainstay.authority.cases import AnswerCase, AnswerColumns, Unfit, encode_case, prune
from mainstay.authority.conditions import NeedsEngine, Reader, Test, compile_conditions
from mainstay.authority.expressions import mentions, scope_covers
from mainstay.authority.keys import Principal
from mainstay.authority.schema import ANSWER, CHANGES, NAMESPACE, Action, answer_context
from mainstay.authority.source import MAX_BYTES, Policy, read_policies
from mainstay.documents import Problems, read_bytes
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from mainstay.authority.schema import Attribute
    from mainstay.capability.load import Declared

NOT_PERMITTED: Final = "no policy permits this"
NOT_JUDGED: Final = "no policy can judge this"
CACHED_VERDICTS: Final = 4_096  # of keys and persons

_POLICY_NUMBER = re.compile(r"\bpolicy(\d+)\b")  # Cedar numbers the policies of a text from 0


@dataclass(frozen=True, slots=True)
class Person:
    """Someone at the command line."""

    account: str


class Moved(NamedTuple):
    """A version on its way to a stage, as policies on `promote`, `approve` and `override` see it."""

    stage: str
    version: str
    proposed_by: str | None = None  # the account of the person who asked for what is approved


class Denial(NamedTuple):
    """Why something may not be done without a person, or at all."""

    policy: str  # the @id of the policy that decided, or that no policy did
    detail: str = ""  # its @reason


@dataclass(frozen=True, slots=True)
class Answers:
    """What may be answered without a person, as far as it is known before a call."""

    depends_on_call: bool
    denial: Denial | None = None  # of every answer, where nothing in a call can change that; None: all may be given


_NOT_PERMITTED = Denial(NOT_PERMITTED)

Judged: TypeAlias = Literal["always alike", "compiled", "by the engine"]
AnswerJudge: TypeAlias = "Callable[[Sequence[AnswerCase]], list[Denial | None]]"
ColumnsJudge: TypeAlias = "Callable[[AnswerColumns], list[Denial | None] | None]"


class Authority:
    """The policies of one capability, ready to decide. Immutable but for its cache."""

    def __init__(self, digest: str, policies: Sequence[Policy], name: str, team: str, context: Attribute) -> None:
        self.digest = digest  # "sha256:" and 64 hex digits, of the text
        self.policies = tuple(policies)
        self._engine = _Engine(self.policies, name, team)
        self._may = lru_cache(maxsize=CACHED_VERDICTS)(self._engine.may)
        relevant = [each for each in self.policies if _applies_to_answers(each, name)]
        looked_at = {mention for each in relevant for body in each.conditions for mention in mentions(body["body"])}
        everything = any(not mention.path for mention in looked_at)
        names = {each.name for each in context.fields} if everything else {mention.path[0] for mention in looked_at}
        self.reads = frozenset(names)  # attributes of the context: what is not among them need not be worked out
        self.judged: Judged = "always alike"
        self._judge: AnswerJudge | None = None
        self._judge_columns: ColumnsJudge | None = None
        self.answers = Answers(depends_on_call=bool(looked_at))
        if looked_at:
            self._judge, self._judge_columns = _compile(relevant, context)
            self.judged = "by the engine" if self._judge is None else "compiled"
            self._judge = self._judge or self._engine.judge(prune(context, looked_at))
        else:
            self.answers = Answers(depends_on_call=False, denial=self._engine.answer_alike())

    def may(self, principal: Principal | Person, action: Action, moved: Moved | None = None) -> Denial | None:
        """Why a key or a person may not do this with the capability; None when it may.

        `moved` is given for actions on a version on its way to a stage. What a policy says of `change` it says of all
        that `change` is made of, be it written with `in` or with `==`. Nothing in a call can change the verdict: it
        depends on the arguments alone, and is cached.
        """
        denial = self._may(principal, action, moved)
        if action not in CHANGES or (denial is not None and denial != _NOT_PERMITTED):
            return denial
        of_all = self._may(principal, "change", None)
        return denial if of_all == _NOT_PERMITTED else of_all

    def outside_columns(self, cases: AnswerColumns) -> list[Denial | None] | None:
        """The same as `outside`, for cases that are given as columns; None when they have to be given one by one."""
        return None if self._judge_columns is None else self._judge_columns(cases)

    def outside(self, cases: Sequence[AnswerCase]) -> list[Denial | None]:
        """For each case, why it may not be answered without a person; None when it may."""
        if self._judge is None:
            return [self.answers.denial] * len(cases)
        return self._judge(cases)


def compile_authority(declared: Declared) -> Authority:
    """The authority of a capability folder.

    Raises InvalidDocument with every problem of the file, that it is absent or leads out of the folder included.
    """
    file = str(declared.folder / declared.capability.authority)
    problems = Problems()
    content = None
    path = _inside(declared.folder, declared.capability.authority)
    if path is None:
        problems.add(file, 1, "", "a file inside the folder", "a link that leaves it, or leads nowhere")
    else:
        content = read_bytes(path, file, problems, MAX_BYTES)
    if content is None:
        raise InvalidDocument(problems.found)
    capability = declared.capability
    context = answer_context(declared.input.properties, declared.output.properties)
    return parse_authority(content, file, name=capability.name, team=capability.owner.team, context=context)


def parse_authority(content: bytes, file: str, *, name: str, team: str, context: Attribute) -> Authority:
    """The authority that a text states over the capability `name`; problems call the text `file`.

    Raises InvalidDocument with every problem of it.
    """
    policies = read_policies(content, file, context)
    return Authority(f"sha256:{sha256(content).hexdigest()}", policies, name, team, context)


def _inside(folder: Path, name: str) -> Path | None:
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) else None
    except (OSError, RuntimeError):  # links in a circle
        return None


class _Engine:
    """Cedar's own engine over a set of policies and one capability."""

    def __init__(self, policies: Sequence[Policy], name: str, team: str) -> None:
        self._policies = policies
        self._capability = _entity("Capability", name)
        attributes = {"name": name, "team": team}
        self._entities: list[dict[str, Any]] = [{"uid": self._capability, "attrs": attributes, "parents": []}]
        change = _entity("Action", "change")
        self._actions: list[dict[str, Any]] = [{"uid": change, "attrs": {}, "parents": []}]
        for member in sorted(CHANGES):
            self._actions.append({"uid": _entity("Action", member), "attrs": {}, "parents": [change]})
        self._parsed_entities = cedarpy.Entities.from_json_str(_json(self._entities))
        self._parsed_policies = cedarpy.PolicySet.from_str("\n".join(each.text for each in policies))

    def may(self, principal: Principal | Person, action: Action, moved: Moved | None) -> Denial | None:
        entities = [*self._entities, *self._actions]
        if isinstance(principal, Principal):
            uid = _entity("Key", principal.key_id)
            scopes = {"name": principal.name, "capabilities": principal.capabilities, "verbs": principal.verbs}
            entities = [*entities, {"uid": uid, "attrs": scopes, "parents": []}]
        else:
            uid = _entity("Person", principal.account)
        request = {
            "principal": uid,
            "action": _entity("Action", action),
            "resource": self._capability,
            "context": {} if moved is None else _circumstances(action, moved),
        }
        return self._denial(cedarpy.is_authorized(request, self._parsed_policies, entities))

    def answer_alike(self) -> Denial | None:
        """The verdict on every answer, where no policy looks at the context."""
        return self._ask(["{}"])[0]

    def judge(self, context: Attribute) -> AnswerJudge:
        """A function that asks the engine about the cases of a batch together."""

        def judge(cases: Sequence[AnswerCase]) -> list[Denial | None]:
            denials: list[Denial | None] = [None] * len(cases)
            places, contexts = [], []
            for place, case in enumerate(cases):
                try:
                    contexts.append(encode_case(context, case).decode())
                    places.append(place)
                except Unfit as unfit:
                    denials[place] = _unfit(unfit)
            for place, denial in zip(places, self._ask(contexts), strict=True):
                denials[place] = denial
            return denials

        return judge

    def _ask(self, contexts: Iterable[str]) -> list[Denial | None]:
        of_all = {
            "principal": self._capability,
            "action": _entity("Action", ANSWER),
            "resource": self._capability,
        }
        requests = [{**of_all, "context": context} for context in contexts]
        results = cedarpy.is_authorized_batch(requests, self._parsed_policies, self._parsed_entities)
        return [self._denial(result) for result in results]

    def _denial(self, result: cedarpy.AuthzResult) -> Denial | None:
        """What the engine says, and that every error denies. Its words are not passed on: they may hold values."""
        errors = result.diagnostics.errors
        if errors:
            failed = self._first(errors)
            return Denial(NOT_JUDGED) if failed is None else Denial(failed.id, f"policy {failed.id} failed")
        if result.decision is cedarpy.Decision.Allow:
            return None
        if result.decision is not cedarpy.Decision.Deny:
            return Denial(NOT_JUDGED)
        forbidding = self._first(result.diagnostics.reasons)
        return _NOT_PERMITTED if forbidding is None else _denial_of(forbidding)

    def _first(self, words: Iterable[str]) -> Policy | None:
        """The first policy, in the order of the text, of those that the engine names."""
        numbers = [int(match[1]) for match in map(_POLICY_NUMBER.search, words) if match]
        return self._policies[min(numbers)] if numbers else None


def _applies_to_answers(policy: Policy, name: str) -> bool:
    return (
        scope_covers(policy.parsed["principal"], f"{NAMESPACE}::Capability", name)
        and scope_covers(policy.parsed["action"], f"{NAMESPACE}::Action", ANSWER)
        and scope_covers(policy.parsed["resource"], f"{NAMESPACE}::Capability", name)
    )


def _compile(policies: Sequence[Policy], context: Attribute) -> tuple[AnswerJudge, ColumnsJudge] | tuple[None, None]:
    """The policies as functions of our own, or None where one needs the engine."""
    reader = Reader(context)
    forbids: list[tuple[Test, Denial]] = []
    permits: list[Test] = []
    try:
        for each in policies:
            test = compile_conditions(each.conditions, reader)
            if each.forbids:
                forbids.append((test, _denial_of(each)))
            else:
                permits.append(test)
    except NeedsEngine:
        return None, None

    def judge_one(case: AnswerCase) -> Denial | None:
        try:
            values = reader.read(case)
        except Unfit as unfit:
            return _unfit(unfit)
        return judge_values(values)

    def judge_values(values: Sequence[Any]) -> Denial | None:
        for test, denial in forbids:
            if test(values):
                return denial
        for test in permits:
            if test(values):
                return None
        return _NOT_PERMITTED

    def judge_columns(cases: AnswerColumns) -> list[Denial | None] | None:
        columns = reader.columns(cases)
        return None if columns is None else list(map(judge_values, zip(*columns, strict=True)))

    return lambda cases: [judge_one(case) for case in cases], judge_columns


def _denial_of(policy: Policy) -> Denial:
    return Denial(policy.id, policy.reason)


def _unfit(unfit: Unfit) -> Denial:
    return Denial(NOT_JUDGED, f"{unfit.args[0]} is missing or beyond what a policy can compare")


def _circumstances(action: Action, moved: Moved) -> dict[str, Any]:
    found: dict[str, Any] = {"stage": moved.stage, "version": moved.version}
    if action == "approve" and moved.proposed_by is not None:
        found["proposed_by"] = {"__entity": _entity("Person", moved.proposed_by)}
    return found


def _entity(kind: str, name: str) -> dict[str, str]:
    return {"type": f"{NAMESPACE}::{kind}", "id": name}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
