from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mainstay.catalog.drafting import Drafted, Wish, draft
from mainstay.catalog.drafting_folder import Trust
from mainstay.cli.common import DEFAULT, Common, columns, err, out, print_json
from mainstay.documents import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.catalog.drafting_types import Pilot
    from mainstay.problems import Problem

ASKED = "an answer to: "


@Parameter(name="*")
@dataclass(frozen=True)
class Columns:
    """Options that say what the columns of the sample are."""

    label: Annotated[str | None, Parameter(help="The column that the model predicts.")] = None
    ignore: Annotated[
        tuple[str, ...], Parameter(help="A column that is no input; can be given again.", negative="")
    ] = ()
    public: Annotated[
        tuple[str, ...],
        Parameter(
            help="A column that says nothing of a person, whatever it looks like: its values may be written into the "
            "contract; can be given again.",
            negative="",
        ),
    ] = ()


@Parameter(name="*")
@dataclass(frozen=True)
class Trusted:
    """Options that say why the model's file may be opened."""

    trust_pickle: Annotated[str | None, Parameter(help="Why this pickle may be opened.")] = None
    signed_by: Annotated[
        tuple[Path, ...],
        Parameter(help="A public key in PEM, one of which must have signed the model's file (FILE.sig).", negative=""),
    ] = ()
    trust_type: Annotated[
        tuple[str, ...], Parameter(help="A type that a skops file may hold; can be given again.", negative="")
    ] = ()

    def register_options(self) -> str:
        """Those that `mainstay register` needs again."""
        said = "" if self.trust_pickle is None else f" --trust-pickle {shlex.quote(self.trust_pickle)}"
        return said + "".join(f" --signed-by {shlex.quote(str(each))}" for each in self.signed_by)


INFERRED = Columns()
UNTRUSTED = Trusted()


def new(
    name: str,
    /,
    *,
    model: Annotated[str, Parameter(help="The model's file, or a Python function such as predict.py:predict.")],
    data: Annotated[Path, Parameter(help="A sample of its data: CSV, Parquet or JSON lines.")],
    said: Columns = INFERRED,
    output: Annotated[
        Path | None, Parameter(help="The folder to make; by default capabilities/NAME of the workspace.")
    ] = None,
    trusted: Trusted = UNTRUSTED,
    common: Common = DEFAULT,
) -> None:
    """Draft a capability folder from a model and a sample of its data. What nobody can infer is left as a question.

    Example: mainstay new late-arrival --model model.skops --data flights.csv --label late

    Parameters
    ----------
    name
        The capability: lower-case letters, digits and dashes.
    """
    target = common.open().capabilities / name if output is None else output
    wish = Wish(
        name=name,
        model=model,
        data=data,
        target=_shown_from_here(target),
        label=said.label,
        ignored=said.ignore,
        public=said.public,
        trust=Trust(trusted.trust_pickle, trusted.signed_by),
        trusted_types=trusted.trust_type,
        register_options=trusted.register_options(),
    )
    drafted = _draft(wish)
    if common.json:
        print_json(_facts(drafted))
        return
    for line in _lines(drafted, wish.register_options):
        out.print(line, markup=False)


def _shown_from_here(target: Path) -> Path:
    """The path as a person at this place would write it."""
    here = Path.cwd()
    whole = target if target.is_absolute() else here / target
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def _draft(wish: Wish) -> Drafted:
    """Draft, and say on standard error which step is being done."""
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("reading the sample", total=None)
        return draft(wish, progress=lambda step: bar.update(task, description=step))


def _lines(drafted: Drafted, register_options: str) -> Iterator[str]:
    """What is shown to people."""
    pilot = drafted.pilot
    yield f"{pilot.name}  {drafted.folder}"
    yield ""
    yield from columns(list(_rows(pilot)))
    yield from (f"note: {each}" for each in pilot.notes)
    yield ""
    questions = drafted.questions
    yield f"{len(questions)} question{'' if len(questions) == 1 else 's'} left:"
    yield from columns([[f"  {Path(each.file).name}:{each.line}", _question(each)] for each in questions])
    yield ""
    yield "Next: answer each question in its place, then"
    yield f"      mainstay validate {drafted.folder}"
    yield f"      mainstay register {drafted.folder}{register_options}"


def _rows(pilot: Pilot) -> Iterator[list[str]]:
    matched, given = pilot.matched, pilot.given
    yield ["model", f"{pilot.model.kind}: {pilot.model.what}, {pilot.task}{_classes(pilot)}"]
    rows = f"{pilot.sample.frame.height:,} rows of {pilot.sample.file}"
    yield ["sample", rows if pilot.sample.is_whole else f"the first {rows}"]
    yield ["input", f"{len(pilot.input.columns)} properties, {matched.features_by}"]
    inferred = pilot.input.columns
    required = sum(each.declared.required for each in inferred)
    rules = [each.rule for column in inferred for each in column.findings]
    bounded = sum(bool({"minimum", "maximum"} & {each.rule for each in column.findings}) for column in inferred)
    listed, shaped = rules.count("validValues"), rules.count("pattern") + rules.count("format")
    yield ["", f"{required} required, {bounded} with bounds, {listed} with listed values, {shaped} of one shape"]
    for table in pilot.input.tables:
        yield ["", f"{shorten(', '.join(table.determinant))} settles {shorten(', '.join(table.dependents))}"]
    yield ["output", ", ".join(each.name for each in given.described.properties)]
    if matched.label is not None:
        shares = ", ".join(f"{value} in {share:.1%}" for value, share in pilot.label_shares()[:5])
        yield ["label", f"{matched.label}, {matched.label_by}" + (f": {shares}" if shares else "")]
    if matched.unused:
        yield ["not used", shorten(", ".join(matched.unused), 100)]
    if pilot.reference_places:
        yield ["reference", f"{len(pilot.reference_places):,} rows of the sample; none were held out"]


def _classes(pilot: Pilot) -> str:
    classes = () if pilot.given.gives is None else pilot.given.gives.classes
    if not classes:
        return ""
    shown = ", ".join(map(str, classes[:5]))
    return f" ({shown}{', ...' if len(classes) > 5 else ''})"


def _question(problem: Problem) -> str:
    return problem.expected.removeprefix(ASKED)


def _facts(drafted: Drafted) -> dict[str, Any]:
    """The JSON of `mainstay new`."""
    pilot = drafted.pilot
    matched, gives = pilot.matched, pilot.given.gives
    return {
        "capability": pilot.name,
        "folder": str(drafted.folder),
        "task": pilot.task,
        "model": {
            "kind": pilot.model.kind,
            "what": pilot.model.what,
            "file": pilot.file,
            "call": pilot.call,
            "trusted_types": pilot.model.trusted_types,
            "classes": () if gives is None else gives.classes,
        },
        "sample": {
            "file": pilot.sample.file,
            "rows": pilot.sample.frame.height,
            "whole": pilot.sample.is_whole,
        },
        "features": {"names": matched.features, "by": matched.features_by},
        "label": None if matched.label is None else {"name": matched.label, "by": matched.label_by},
        "unused": matched.unused,
        "input": [
            {
                "name": each.name,
                "type": each.declared.logical_type,
                "required": each.declared.required,
                "inferred": each.facts(),
                "because": each.words(),
            }
            for each in pilot.input.columns
        ],
        "dependencies": [
            {
                "determinant": each.determinant,
                "dependent": each.dependents,
                "values": len(each.mapping),
                "inferred": each.facts(),
                "because": each.words(),
            }
            for each in pilot.input.tables
        ],
        "output": [{"name": each.name, "type": each.logical_type} for each in pilot.given.described.properties],
        "rows": {"samples": len(pilot.sample_places), "reference": len(pilot.reference_places)},
        "questions": [
            {"file": each.file, "line": each.line, "where": each.where, "question": _question(each)}
            for each in drafted.questions
        ],
        "notes": pilot.notes,
    }
