"""What is fitted on the reference rows: the novelty profile, and the calibration of stated confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainstay.catalog.calibrate import FEWEST_ROWS, fit_calibration, right_answers
from mainstay.catalog.profile import fit_profile
from mainstay.catalog.samples import features_of, is_sound
from mainstay.runtime.types import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.capability.load import Declared
    from mainstay.catalog.models import Model, Tried
    from mainstay.catalog.reference import ReferenceRows
    from mainstay.catalog.types import Calibration


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the reference rows gave."""

    profile: bytes
    rows: int
    false_alarms: float
    calibration: Calibration | None
    notes: tuple[str, ...]


def fit_reference(declared: Declared, model: Model, reference: ReferenceRows, tell: Callable[[str], None]) -> Fitted:
    """Run the reference rows through the model and fit what they show.

    Rows that the model fails on, or gives an output for that breaks its contract, are counted and noted: production
    will hold such rows, too. Raises Misuse when there are too few rows, or the label is nothing the model can choose.
    """
    described = declared.capability.reference
    assert described is not None, "rows are only read where they are declared"
    rows = len(reference.inputs)
    tell(f"running {rows:,} reference rows")
    tried = model.run(reference.inputs)
    sound = [isinstance(each.result, Prediction) and is_sound(declared, each.result) for each in tried]
    notes = []
    if not all(sound):
        notes.append(
            f"the output of {sound.count(False):,} of {rows:,} reference rows breaks the output contract or is none, "
            f"first of row {sound.index(False) + 1:,}"
        )
    tell("fitting what ordinary input looks like")
    profile = fit_profile(
        reference.inputs, declared.input.fields, features_of(declared), false_alarms=described.false_alarms
    )
    calibration = None
    if described.label is not None:
        tell("calibrating confidence")
        whole = [
            (each, label)
            for each, label, is_sound in zip(tried, reference.labels, sound, strict=True)
            if is_sound and label is not None
        ]
        calibration, note = _calibrate(declared, model, described.label, whole)
        notes += note
    return Fitted(profile, rows, described.false_alarms, calibration, tuple(notes))


def _calibrate(
    declared: Declared, model: Model, label: str, known: Sequence[tuple[Tried, Any]]
) -> tuple[Calibration | None, list[str]]:
    """The calibration on rows whose true label is known, or a note saying why there is none.

    The class of a model without classes is the output's property that is called as the label.
    """
    place = declared.output.fields.index(label) if label in declared.output.fields else None
    if not model.classes and place is None:
        return None, [f"confidence is not calibrated: the output has no property {label} to compare with the outcome's"]
    stated, chosen, labels = [], [], []
    for (result, by_class), true in known:
        if isinstance(result, Prediction) and result.confidence is not None:
            stated.append(result.confidence)
            chosen.append(by_class if place is None or model.classes else result.values[place])
            labels.append(true)
    if not stated and known:
        return None, ["confidence is not calibrated: the model states none"]
    if len(stated) < FEWEST_ROWS:
        few = f"expected at least {FEWEST_ROWS} reference rows with a label, found {len(stated)}"
        return None, [f"confidence is not calibrated: {few}"]
    return fit_calibration(stated, right_answers(model.classes or chosen, chosen, labels)), []
