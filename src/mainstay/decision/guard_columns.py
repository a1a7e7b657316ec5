"""Step 7 for many rows at once: which of them are simply answered, and with what.

What is answered here is what `guard` gives for the same row: the output by the same encoder, the same p-value, the same
calibrated confidence, the same policies. Everything else (a broken output, a doubt, a denial) is only found, and is for
whoever asks to settle one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mainstay.authority.cases import AnswerCase, AnswerColumns
from mainstay.decision.record import NULL
from mainstay.privacy.protection import ProtectionFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.decision.plan import Plan
    from mainstay.runtime.outputs import Predictions
    from mainstay.runtime.types import Row

_encoder = msgspec.json.Encoder()
_WRITTEN_ALIKE = (1e-4, 1e15)  # between these msgspec writes a double as `repr` does
_BROKEN = (msgspec.ValidationError, msgspec.DecodeError, TypeError, ValueError, OverflowError, RecursionError)


class Answers(NamedTuple):
    """What the rows of a batch are answered with, in order; None at the place of one that is not simply answered."""

    outputs: list[bytes | None]  # JSON
    recorded: list[bytes | None] | None  # what is recorded of them; None: themselves
    confidences: list[bytes]  # JSON, as are the next
    novelties: list[bytes]


def answer_many(
    plan: Plan, given: Predictions, p_values: Sequence[float] | None, rows: Callable[[], Sequence[Row]]
) -> Answers:
    """The answers to a batch. `rows` makes the rows, which are needed only where policies look at the input."""
    outputs = _outputs(plan, given.columns)
    count = len(outputs)
    stated: Sequence[float | None] = given.confidence if given.confidence is not None else [None] * count
    confidences = stated if plan.calibrator is None else plan.calibrator(stated)
    lowest = plan.capability.min_confidence
    if lowest is not None:
        outputs = [
            None if confidence is None or confidence < lowest else output
            for output, confidence in zip(outputs, confidences, strict=True)
        ]
    novelties = [NULL] * count
    if p_values is not None:
        words = {value: b"%.4g" % value for value in set(p_values)}
        novelties = [words[value] for value in p_values]
        false_alarms = plan.false_alarms
        if min(p_values, default=1.0) <= false_alarms:
            outputs = [
                None if value <= false_alarms else output for output, value in zip(outputs, p_values, strict=True)
            ]
    _withhold_denied(plan, outputs, given, rows, confidences, p_values)
    return Answers(
        outputs,
        None if plan.output_protector is None else _recorded(plan, outputs),
        _numbers(confidences),
        novelties,
    )


def _numbers(values: Sequence[float | None]) -> list[bytes]:
    """As JSON, by Python's `repr`, which many at once are written as where all are of a size written alike."""
    if values and all(value is not None and _WRITTEN_ALIKE[0] <= value <= _WRITTEN_ALIKE[1] for value in values):
        return _encoder.encode(values)[1:-1].split(b",")
    return [NULL if value is None else b"%a" % value for value in values]


def _outputs(plan: Plan, columns: Sequence[Sequence[Any]]) -> list[bytes | None]:
    """The outputs that keep the contract, as JSON."""
    values = list(zip(*columns, strict=True))
    try:
        lines = _encoder.encode_lines([plan.make_output(*each) for each in values])
        plan.declared.output.decode_lines(lines)
        outputs: list[bytes | None] = lines.split(b"\n")[:-1]  # type: ignore[assignment]  # bytes are among them
    except _BROKEN:  # some of them: which, is found one by one
        return [_output(plan, each) for each in values]
    return outputs


def _output(plan: Plan, values: Sequence[Any]) -> bytes | None:
    try:
        output = _encoder.encode(plan.make_output(*values))
        plan.check_output(output)
    except _BROKEN:
        return None
    return output


def _withhold_denied(
    plan: Plan,
    outputs: list[bytes | None],
    given: Predictions,
    rows: Callable[[], Sequence[Row]],
    confidences: Sequence[float | None],
    p_values: Sequence[float] | None,
) -> None:
    """Leave out what a policy wants a person for."""
    count, answers = len(outputs), plan.authority.answers
    if not answers.depends_on_call:
        if answers.denial is not None:
            outputs[:] = [None] * count
        return
    whole = AnswerColumns(
        lambda: list(zip(*rows(), strict=True)),
        dict(zip(plan.declared.output.fields, given.columns, strict=True)),
        confidences,
        [None] * count if p_values is None else p_values,
        [plan.digest] * count,
        [plan.stage == "canary"] * count,
    )
    denials = plan.authority.outside_columns(whole)
    if denials is None:
        places = [place for place, output in enumerate(outputs) if output is not None]
        found = iter(plan.authority.outside(_cases(plan, outputs, places, rows, whole)))
        denials = [None if output is None else next(found) for output in outputs]
    for place, denial in enumerate(denials):
        if denial is not None:
            outputs[place] = None


def _cases(
    plan: Plan,
    outputs: Sequence[bytes | None],
    places: Sequence[int],
    rows: Callable[[], Sequence[Row]],
    whole: AnswerColumns,
) -> list[AnswerCase]:
    reads_input = "input" in plan.authority.reads
    inputs = rows() if reads_input else [(None,) * len(plan.declared.input.fields)] * len(outputs)
    canary = plan.stage == "canary"
    return [
        AnswerCase(
            inputs[place], outputs[place] or NULL, whole.confidence[place], whole.novelty[place], plan.digest, canary
        )
        for place in places
    ]


def _recorded(plan: Plan, outputs: list[bytes | None]) -> list[bytes | None]:
    """What may be recorded of the outputs; one of which nothing can be made is left out of them, too."""
    recorded: list[bytes | None] = []
    for place, output in enumerate(outputs):
        try:
            recorded.append(None if output is None else plan.recorded(output))
        except ProtectionFailed:
            outputs[place] = None
            recorded.append(None)
    return recorded
