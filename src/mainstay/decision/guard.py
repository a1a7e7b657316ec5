"""Step 7: what the model gave for a batch of rows, held against everything that was declared.

    the output     keeps the contract
    novelty        is the input like what the model was registered with
    confidence     calibrated, and not below what is declared
    authority      may the capability answer this without a person

The batch goes through each of these once. What passes all is a verdict; what does not is trouble, and the service
decides by the declaration what becomes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mainstay.authority.cases import AnswerCase
from mainstay.decision.record import NULL, Verdict
from mainstay.decision.types import Reason
from mainstay.privacy.protection import ProtectionFailed
from mainstay.runtime.types import Crashed, Prediction, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.authority.policy import Denial
    from mainstay.contract.types import Violation
    from mainstay.decision.plan import Plan
    from mainstay.decision.types import Behaviour, ReasonCode
    from mainstay.runtime.types import Result, Row

_encode = msgspec.json.Encoder().encode

_SEVERITY: dict[Behaviour, int] = {"answer": 0, "fallback": 1, "review": 2, "refuse": 3}


class Trouble(NamedTuple):
    """A row that is not simply answered. Whatever is bytes is JSON."""

    behaviour: Behaviour
    reasons: tuple[Reason, ...]
    output: bytes | None = None  # what the model gave, where it keeps the contract
    confidence: bytes = NULL
    novelty: bytes = NULL
    failed: bool = False  # the model's own fault, for the breaker to count


def guard(plan: Plan, rows: Sequence[Row], results: Sequence[Result]) -> list[Verdict | Trouble]:
    """A verdict or trouble for every row, in order."""
    p_values = None if plan.novelty is None else plan.novelty.p_values(rows)
    confidences = [result.confidence if isinstance(result, Prediction) else None for result in results]
    if plan.calibrator is not None:
        confidences = plan.calibrator(confidences)
    lowest, false_alarms = plan.capability.min_confidence, plan.false_alarms
    guarded: list[Verdict | Trouble] = []
    doubted = False  # whether there is any that is answered in spite of a concern
    for place, result in enumerate(results):
        output = _usable(plan, result)
        if isinstance(output, Trouble):
            guarded.append(output)
            continue
        confidence = confidences[place]
        stated = NULL if confidence is None else b"%a" % confidence
        novelty, strange = NULL, False
        if p_values is not None:
            novelty, strange = b"%.4g" % p_values[place], p_values[place] <= false_alarms
        unsure = lowest is not None and (confidence is None or confidence < lowest)
        if strange or unsure:
            concern = _concern(plan, rows[place], confidence, strange=strange, unsure=unsure)
            guarded.append(concern._replace(output=output, confidence=stated, novelty=novelty))
            doubted = True
        else:
            guarded.append(Verdict("answered", output, stated, (), (), novelty))
    answers = plan.authority.answers
    if answers.depends_on_call or answers.denial is not None or plan.output_protector is not None:
        return _within_authority(plan, rows, confidences, p_values, guarded)
    return [_answered(each) for each in guarded] if doubted else guarded


def denial_of(plan: Plan, row: Row, output: bytes) -> Reason | None:
    """Why an output that did not come from the plan's own model may not be answered without a person, if so."""
    if not plan.authority.answers.depends_on_call:
        return _reason(plan.authority.answers.denial)
    return _reason(plan.authority.outside([_case(plan, row, output, None, None)])[0])


def trouble_of(plan: Plan, code: ReasonCode, detail: str, *, failed: bool = False) -> Trouble:
    """What is declared for a reason."""
    behaviour: Behaviour = getattr(plan.capability.when, code)
    return Trouble(behaviour, (Reason(code, detail),), failed=failed)


def contract_trouble(plan: Plan, violations: Sequence[Violation]) -> Trouble:
    """What is declared for an input that breaks these rules."""
    rules = f"{len(violations)} broken rule{'' if len(violations) == 1 else 's'}"
    detail = f"{rules}: " + ", ".join(f"{each.field} ({each.rule})" for each in violations[:5])
    return trouble_of(plan, "contract_violation", detail)


def _usable(plan: Plan, result: Result) -> bytes | Trouble:
    """The output as JSON that keeps the contract."""
    if not isinstance(result, Prediction):
        # What a model says of its failure may quote the input.
        detail = one_line(result) if plan.protector is None else type(result).__name__
        code: ReasonCode = "model_error"
        if isinstance(result, Crashed):
            code = "model_crashed"
        elif isinstance(result, Unavailable):
            code = "model_unavailable"
        return trouble_of(plan, code, detail, failed=True)
    try:
        output = _encode(plan.make_output(*result.values))
        plan.check_output(output)
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError, RecursionError) as error:
        detail = one_line(error) if plan.output_protector is None else "a classified output breaks the contract"
        return trouble_of(plan, "output_invalid", detail, failed=True)
    return output


def _concern(plan: Plan, row: Row, confidence: float | None, *, strange: bool, unsure: bool) -> Trouble:
    """What is declared for a usable answer that is doubted; the stricter of two."""
    when = plan.capability.when
    reasons: list[Reason] = []
    behaviours: list[Behaviour] = []
    if strange:
        assert plan.novelty is not None
        names = [name for name, _ in plan.novelty.explain(row)[:3]]
        reasons.append(Reason("out_of_distribution", f"unlike the reference in: {', '.join(names) or 'joint'}"))
        behaviours.append(when.out_of_distribution)
    if unsure:
        found = "none" if confidence is None else f"{confidence:.3f}"
        reasons.append(Reason("low_confidence", f"expected at least {plan.capability.min_confidence}, found {found}"))
        behaviours.append(when.low_confidence)
    return Trouble(max(behaviours, key=_SEVERITY.__getitem__), tuple(reasons))


def _within_authority(
    plan: Plan,
    rows: Sequence[Row],
    confidences: Sequence[float | None],
    p_values: Sequence[float] | None,
    guarded: list[Verdict | Trouble],
) -> list[Verdict | Trouble]:
    """What would be answered, unless a policy wants a person for it."""
    answers = plan.authority.answers
    asked = [place for place, each in enumerate(guarded) if isinstance(each, Verdict) or each.behaviour == "answer"]
    if answers.depends_on_call:
        cases = [
            _case(plan, rows[place], guarded[place].output or NULL, confidences[place], _at(p_values, place))
            for place in asked
        ]
        denials = plan.authority.outside(cases)
    else:
        denials = [answers.denial] * len(asked)
    for place, denial in zip(asked, denials, strict=True):
        guarded[place] = _decide(plan, _answered(guarded[place]), _reason(denial))
    return guarded


def _answered(each: Verdict | Trouble) -> Verdict | Trouble:
    """Trouble that is answered all the same, as a verdict with its reasons."""
    if isinstance(each, Verdict) or each.behaviour != "answer" or each.output is None:
        return each
    return Verdict("answered", each.output, each.confidence, each.reasons, novelty=each.novelty)


def _decide(plan: Plan, verdict: Verdict | Trouble, denial: Reason | None) -> Verdict | Trouble:
    if isinstance(verdict, Trouble):
        return verdict
    if denial is not None:
        reasons = (denial, *verdict.reasons)
        return Trouble("review", reasons, verdict.output, verdict.confidence, verdict.novelty)
    try:
        return verdict._replace(recorded=plan.recorded(verdict.output))
    except ProtectionFailed:
        return Trouble("refuse", (Reason("protection_failed", "the output could not be protected"),))


def _at(values: Sequence[float] | None, place: int) -> float | None:
    return None if values is None else values[place]


def _case(plan: Plan, row: Row, output: bytes, confidence: float | None, novelty: float | None) -> AnswerCase:
    return AnswerCase(
        input=row or (None,) * len(plan.declared.input.fields),  # one that was never read has no values
        output=output,
        confidence=confidence,
        novelty=novelty,
        version=plan.digest,
        canary=plan.stage == "canary",
    )


def _reason(denial: Denial | None) -> Reason | None:
    if denial is None:
        return None
    return Reason("outside_authority", f"{denial.policy}: {denial.detail}" if denial.detail else denial.policy)


def one_line(error: Any) -> str:
    """What an exception says, on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
