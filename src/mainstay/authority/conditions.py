"""Conditions compiled to Python: boolean combinations of comparisons of the context's scalars with literals.

The engine takes about 30 us for a case, most of it for moving the case into it; these take about one. They mean what
Cedar means, which tests hold them to; whatever is outside of this small language is left to the engine.

None of these can fail: what Cedar calls an error needs arithmetic, a missing attribute that strict validation did not
see guarded, or a malformed literal, and none of these gets here.
"""

from __future__ import annotations

import math
import operator
import struct
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from mainstay.authority.cases import FITS, LONG, MAX_DECIMAL, Unfit, decimal_text
from mainstay.authority.expressions import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from mainstay.authority.cases import AnswerCase, AnswerColumns
    from mainstay.authority.expressions import Expression, Path
    from mainstay.authority.schema import Attribute, Kind

Values: TypeAlias = "Sequence[Any]"  # of the leaves that conditions read, None where absent
Test: TypeAlias = "Callable[[Values], bool]"

_ORDER: Final = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_DECIMAL_ORDER: Final = {"lessThan": "<", "lessThanOrEqual": "<=", "greaterThan": ">", "greaterThanOrEqual": ">="}
_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "=="}
_LITERAL_TYPES: Final[dict[Kind, type]] = {"string": str, "long": int, "boolean": bool}
_OUTPUT = 1  # where the output stands in a case

_decode = msgspec.json.Decoder().decode


class NeedsEngine(Exception):
    """A condition is outside of the language that is compiled."""


class _Leaf(NamedTuple):
    """A scalar of the context that conditions read, and where its value stands among those read."""

    place: int
    path: Path
    attribute: Attribute
    section: int  # of the case
    member: int | None  # of the row, or of the names read of the output; None: the section itself is the scalar
    fits: Callable[[Any], bool]  # a value, where there is one


class Reader:
    """Which scalars of a case compiled conditions read."""

    def __init__(self, context: Attribute) -> None:
        self._context = context
        self._leaves: dict[Path, _Leaf] = {}
        self._output_names: list[str] = []  # read of the output

    def leaf(self, path: Path) -> _Leaf:
        """The scalar at a path, which is read from now on. Raises NeedsEngine when it is no scalar or lies deeper."""
        if path not in self._leaves:
            self._leaves[path] = self._locate(path)
        return self._leaves[path]

    def read(self, case: AnswerCase) -> list[Any]:
        """What conditions read of a case. Raises Unfit."""
        sections: tuple[Sequence[Any], ...] = (case.input,)
        if self._output_names:
            output = _decode(case.output)
            sections = (case.input, [output.get(name) for name in self._output_names])
        values = []
        for _, path, attribute, section, member, fits in self._leaves.values():
            value = case[section] if member is None else sections[section][member]
            if attribute.required if value is None else not fits(value):
                raise Unfit(".".join(path))
            values.append(value)
        return values

    def columns(self, cases: AnswerColumns) -> list[Sequence[Any]] | None:
        """What conditions read of many cases, a column for each scalar; None when a case may be unfit."""
        found = []
        for _, path, attribute, section, member, fits in self._leaves.values():
            column: Any
            if member is None:
                column = cases[section]
            elif section == _OUTPUT:
                column = cases.output[path[1]]
            else:
                column = cases.input()[member]
            if not all(map(fits, column if attribute.required else (value for value in column if value is not None))):
                return None
            found.append(column)
        return found

    def _locate(self, path: Path) -> _Leaf:
        section = self._context.field(path[0]) if 1 <= len(path) <= 2 else None
        found = section if section is None or len(path) == 1 else section.field(path[1])
        if section is None or found is None or found.kind in {"set", "record"}:
            raise NeedsEngine
        member = None
        if len(path) == 2 and section.position == _OUTPUT:
            member = len(self._output_names)
            self._output_names.append(found.name)
        elif len(path) == 2:
            member = found.position
        return _Leaf(len(self._leaves), path, found, section.position, member, FITS[found.kind])


def compile_conditions(conditions: Iterable[Mapping[str, Any]], reader: Reader) -> Test:
    """All `when` and no `unless` of a policy, as a function of what the reader reads. Raises NeedsEngine."""
    tests = []
    for condition in conditions:
        test = _boolean(condition["body"], reader)
        tests.append(test if condition["kind"] == "when" else _negation(test))
    return _all(tests)


def _boolean(expression: Expression, reader: Reader) -> Test:
    path = path_of(expression)
    if path is not None:
        return _flag(reader.leaf(path))
    ((name, body),) = expression.items()
    match name:
        case "Value" if isinstance(body, bool):
            return _always if body else _never
        case "&&":
            return _all([_boolean(each, reader) for each in _flat("&&", expression)])
        case "||":
            return _any([_boolean(each, reader) for each in _flat("||", expression)])
        case "!":
            return _negation(_boolean(body["arg"], reader))
        case "if-then-else":
            return _choice(*(_boolean(body[each], reader) for each in ("if", "then", "else")))
        case "has":
            return _presence((*_path(body["left"]), body["attr"]), reader)
        case "==" | "<" | "<=" | ">" | ">=":
            return _comparison(name, body["left"], body["right"], reader)
        case "!=":
            return _negation(_comparison("==", body["left"], body["right"], reader))
        case "lessThan" | "lessThanOrEqual" | "greaterThan" | "greaterThanOrEqual":
            left, right = body
            return _comparison(_DECIMAL_ORDER[name], left, right, reader)
        case "contains":
            return _membership(body["left"], body["right"], reader)
        case _:
            raise NeedsEngine


def _flat(name: str, expression: Expression) -> Iterator[Expression]:
    """The operands of a chain of one operator, from left to right."""
    right: list[Expression] = []
    while name in expression:
        right.append(expression[name]["right"])
        expression = expression[name]["left"]
    yield expression
    yield from reversed(right)


def _path(expression: Expression) -> Path:
    path = path_of(expression)
    if path is None:
        raise NeedsEngine
    return path


def _flag(leaf: _Leaf) -> Test:
    if leaf.attribute.kind != "boolean":
        raise NeedsEngine
    place = leaf.place
    return lambda values: values[place] is True


def _presence(path: Path, reader: Reader) -> Test:
    place = reader.leaf(path).place
    return lambda values: values[place] is not None


def _membership(listed: Expression, looked_up: Expression, reader: Reader) -> Test:
    """Whether a scalar is one of a set of literals."""
    leaf = reader.leaf(_path(looked_up))
    literals = [each.get("Value") for each in listed.get("Set", [{}])]
    if not all(type(each) is _LITERAL_TYPES.get(leaf.attribute.kind) for each in literals):
        raise NeedsEngine
    members, place = frozenset(literals), leaf.place
    return lambda values: values[place] in members


def _comparison(name: str, left: Expression, right: Expression, reader: Reader) -> Test:
    """A scalar of the context and a literal, in either order."""
    path = path_of(left)
    if path is None:
        path, right, name = _path(right), left, _MIRRORED[name]
    leaf = reader.leaf(path)
    place = leaf.place
    if leaf.attribute.kind == "decimal":
        return _decimal_comparison(name, place, _decimal_literal(right))
    literal = right.get("Value")
    if type(literal) is not _LITERAL_TYPES.get(leaf.attribute.kind):
        raise NeedsEngine
    if name == "==":
        return lambda values: bool(values[place] == literal)
    if not isinstance(literal, int) or leaf.attribute.kind != "long":
        raise NeedsEngine
    compare = _ORDER[name]
    return lambda values: compare(values[place], literal)


def _decimal_literal(expression: Expression) -> int:
    """The ten-thousandths of a literal such as `decimal("0.5")`."""
    match expression:
        case {"decimal": [{"Value": str(text)}]}:
            scaled = int(Decimal(text).scaleb(4))
            if LONG[0] <= scaled <= LONG[1]:
                return scaled
    raise NeedsEngine


def _decimal_comparison(name: str, place: int, scaled: int) -> Test:
    """A comparison of the rounded value, made on the value as it is: rounding keeps the order."""
    least, above = _least_double(scaled), _least_double(scaled + 1)
    match name:
        case "<":
            return lambda values: values[place] < least
        case "<=":
            return lambda values: values[place] < above
        case ">":
            return lambda values: values[place] >= above
        case ">=":
            return lambda values: values[place] >= least
        case _:
            return lambda values: least <= values[place] < above


@cache
def _least_double(scaled: int) -> float:
    """The least double within MAX_DECIMAL that rounds to at least so many ten-thousandths; infinity without one."""
    low, high = _ordinal(-MAX_DECIMAL), _ordinal(MAX_DECIMAL) + 1
    while low < high:
        middle = (low + high) // 2
        if middle > _ordinal(MAX_DECIMAL) or _scaled(_double(middle)) >= scaled:
            high = middle
        else:
            low = middle + 1
    return math.inf if low > _ordinal(MAX_DECIMAL) else _double(low)


def _scaled(value: float) -> int:
    return int(decimal_text(value).replace(".", ""))


def _ordinal(value: float) -> int:
    """Doubles counted through in their order."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits) if bits >= 0 else -(bits & LONG[1])


def _double(ordinal: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<q", abs(ordinal)))
    return -float(value) if ordinal < 0 else float(value)


def _always(_: Values) -> bool:
    return True


def _never(_: Values) -> bool:
    return False


def _negation(test: Test) -> Test:
    return lambda values: not test(values)


def _choice(test: Test, then: Test, otherwise: Test) -> Test:
    return lambda values: then(values) if test(values) else otherwise(values)


def _all(tests: Collection[Test]) -> Test:
    if len(tests) == 1:
        (only,) = tests
        return only

    def test_all(values: Values) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would take longer than the tests
            if not test(values):
                return False
        return True

    return test_all


def _any(tests: Collection[Test]) -> Test:
    def test_any(values: Values) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would take longer than the tests
            if test(values):
                return True
        return False

    return test_any
