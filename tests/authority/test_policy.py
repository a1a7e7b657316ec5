from __future__ import annotations

import math
import subprocess
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authority import folders
from mainstay.authority.cases import AnswerCase, prune
from mainstay.authority.expressions import mentions
from mainstay.authority.keys import Principal
from mainstay.authority.policy import (
    NOT_JUDGED,
    NOT_PERMITTED,
    Authority,
    Denial,
    Moved,
    Person,
    compile_authority,
    parse_authority,
)
from mainstay.authority.schema import CHANGES, MOVES, answer_context
from mainstay.authority.source import MAX_BYTES, MAX_POLICIES
from mainstay.capability.load import load_capability
from mainstay.contract.types import Item, Property
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INPUT: Final = (
    Property(name="amount", logical_type="number", required=True),
    Property(name="country", logical_type="string"),
    Property(name="age", logical_type="integer", required=True),
    Property(name="home", logical_type="object", properties=(Property(name="zip", logical_type="string"),)),
    Property(name="tags", logical_type="array", items=Item(logical_type="string")),
    Property(name="discount", logical_type="number"),
    Property(name="open", logical_type="boolean"),
    Property(name="due", logical_type="date"),
)
OUTPUT: Final = (
    Property(name="probability", logical_type="number", required=True),
    Property(name="label", logical_type="string", required=True),
)
CONTEXT: Final = answer_context(INPUT, OUTPUT)
DESK: Final = Principal("1f0c9a2b", "check-in-desk", ("late",), ("decide", "report"))


def read(text: str) -> Authority:
    return parse_authority(text.encode(), "authority.cedar", name="late", team="ops", context=CONTEXT)


def answering(*policies: tuple[str, str, str]) -> Authority:
    """The authority of policies on answers: id, effect, condition."""
    return read("\n".join(
        f'@id("{name}") {effect} (principal, action == Mainstay::Action::"answer", resource) when {{ {condition} }};'
        for name, effect, condition in policies
    ))  # fmt: skip  # the policy is one line


def case(**changes: Any) -> AnswerCase:
    given: dict[str, Any] = {
        "amount": 10.0, "country": "DE", "age": 40, "home": None, "tags": None, "discount": None, "open": True,
        "due": None, "probability": 0.7, "label": "yes", "confidence": 0.9, "novelty": 0.5, "version": "sha256:1",
        "canary": False, **changes,
    }  # fmt: skip  # one a line would fill a page
    row = tuple(given[each.name] for each in INPUT)
    output = msgspec.json.encode({each.name: given[each.name] for each in OUTPUT if given[each.name] is not None})
    return AnswerCase(row, output, given["confidence"], given["novelty"], given["version"], given["canary"])


def by_engine(authority: Authority) -> Any:
    """The same policies, asked of the engine, whatever else would judge them."""
    looked_at = [m for each in authority.policies for body in each.conditions for m in mentions(body["body"])]
    return authority._engine.judge(prune(CONTEXT, looked_at))


def problems(text: str | bytes) -> list[str]:
    content = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(InvalidDocument) as caught:
        parse_authority(content, "a.cedar", name="late", team="ops", context=CONTEXT)
    return [str(each) for each in caught.value.problems]


# Who may do what


KEYS = '@id("keys") permit (principal is Mainstay::Key, action == Mainstay::Action::"call", resource);'


def test_what_no_policy_permits_is_denied() -> None:
    authority = read(KEYS)
    assert authority.may(DESK, "call") is None
    assert authority.may(DESK, "see") == Denial(NOT_PERMITTED)
    assert authority.may(Person("os:ops"), "call") == Denial(NOT_PERMITTED)
    assert authority.answers.denial == Denial(NOT_PERMITTED)
    assert authority.outside([case()] * 2) == [Denial(NOT_PERMITTED)] * 2


def test_a_policy_that_forbids_wins_and_gives_its_reason() -> None:
    authority = read(f'{KEYS} @id("not-this") @reason("The desk moved.") forbid (principal == '
                     'Mainstay::Key::"1f0c9a2b", action, resource);')  # fmt: skip  # the policy is one line
    assert authority.may(DESK, "call") == Denial("not-this", "The desk moved.")
    assert authority.may(Principal("00000000", "other", ("*",), ("decide",)), "call") is None


def test_of_several_policies_that_forbid_the_first_is_named() -> None:
    forbids = "".join(f'@id("no{i}") forbid (principal, action, resource);' for i in range(12))
    assert read(KEYS + forbids).may(DESK, "call") == Denial("no0")


def test_policies_see_a_keys_scopes_and_the_capabilitys_team() -> None:
    authority = read("""
        @id("scopes") permit (principal is Mainstay::Key, action == Mainstay::Action::"call", resource) when {
          principal.verbs.contains("decide") && principal.capabilities.containsAny(["*", resource.name])
        };
        @id("team") permit (principal is Mainstay::Person, action, resource) when { resource.team == "ops" };
        @id("name") permit (principal is Mainstay::Key, action == Mainstay::Action::"see", resource) when {
          principal.name == "check-in-desk"
        };
    """)
    assert authority.may(DESK, "call") is None
    assert authority.may(DESK, "see") is None
    assert authority.may(DESK, "report") == Denial(NOT_PERMITTED)
    assert authority.may(Principal("1f0c9a2b", "x", ("early",), ("decide",)), "call") == Denial(NOT_PERMITTED)
    assert authority.may(Person('o"dd\n'), "change") is None


CHANGED_HOW: Final = [how.format('Mainstay::Action::"change"') for how in ("== {}", "in [{}]", "in {}")]


@pytest.mark.parametrize("how", CHANGED_HOW)
def test_who_may_change_may_do_all_that_change_is_made_of_and_nothing_else(how: str) -> None:
    authority = read(f'@id("people") permit (principal is Mainstay::Person, action {how}, resource);')
    person, moved = Person("os:ops"), Moved("canary", "sha256:1", "other")
    assert [authority.may(person, each, moved if each in MOVES else None) for each in sorted(CHANGES)] == [None] * 5
    assert authority.may(person, "override", moved) == Denial(NOT_PERMITTED)
    assert authority.may(DESK, "promote", moved) == Denial(NOT_PERMITTED)


@pytest.mark.parametrize("how", CHANGED_HOW)
def test_who_may_not_change_may_do_nothing_of_it(how: str) -> None:
    authority = read(f"""
        @id("all") permit (principal, action, resource);
        @id("frozen") forbid (principal is Mainstay::Person, action {how}, resource);
    """)
    person, moved = Person("os:ops"), Moved("canary", "sha256:1")
    assert {authority.may(person, each, moved) for each in ("promote", "approve")} == {Denial("frozen")}
    assert {authority.may(person, each) for each in ("roll_back", "stop", "resume")} == {Denial("frozen")}
    assert authority.may(person, "see") is None


def test_a_part_of_change_can_be_forbidden_and_permitted_by_itself() -> None:
    authority = read("""
        @id("people") permit (principal is Mainstay::Person, action == Mainstay::Action::"change", resource);
        @id("night") permit (principal is Mainstay::Key, action == Mainstay::Action::"stop", resource);
        @id("canaries") forbid (principal, action == Mainstay::Action::"promote", resource)
        when { context.stage == "production" };
    """)
    person = Person("os:ops")
    assert authority.may(DESK, "stop") is None
    assert authority.may(DESK, "resume") == Denial(NOT_PERMITTED)
    assert authority.may(person, "promote", Moved("canary", "sha256:1")) is None
    assert authority.may(person, "promote", Moved("production", "sha256:1")) == Denial("canaries")


def test_verdicts_on_principals_are_worked_out_once() -> None:
    authority = read(KEYS)
    assert [authority.may(DESK, "call") for _ in range(3)] == [None] * 3
    assert authority._may.cache_info()[:2] == (2, 1)


def test_a_policy_that_fails_denies_though_another_permits() -> None:
    authority = read(f'{KEYS} @id("sum") forbid (principal is Mainstay::Key, action, resource) when {{ '
                     '9223372036854775807 + 1 > 0 };')  # fmt: skip  # the policy is one line
    assert authority.may(DESK, "call") == Denial("sum", "policy sum failed")


# What may be answered without a person


def test_answers_that_cannot_depend_on_the_call_are_judged_once() -> None:
    authority = answering(("all", "permit", 'resource.name == "late"'))
    assert not authority.answers.depends_on_call
    assert authority.answers.denial is None
    assert authority.judged == "always alike"
    assert not authority.reads
    stopped = answering(("all", "permit", "true"), ("stop", "forbid", "true"))
    assert stopped.answers.denial == Denial("stop")
    assert stopped.outside([case()]) == [Denial("stop")]


def test_policies_on_other_actions_or_capabilities_do_not_make_answers_depend_on_the_call() -> None:
    authority = read("""
        @id("all") permit (principal, action, resource);
        @id("elsewhere") forbid (principal, action == Mainstay::Action::"answer",
          resource == Mainstay::Capability::"other") when { context.canary };
    """)
    assert not authority.answers.depends_on_call


LIMITS = (
    ("small", "permit", 'context.input.amount.lessThanOrEqual(decimal("100.0"))'),
    ("sure", "forbid", '!(context has confidence && context.confidence.greaterThan(decimal("0.8")))'),
)


def test_a_limit_and_a_lowest_confidence() -> None:
    authority = answering(*LIMITS)
    assert authority.answers.depends_on_call
    assert authority.judged == "compiled"
    assert authority.reads == {"input", "confidence"}
    assert authority.outside([
        case(amount=100.0), case(amount=100.01), case(confidence=0.8), case(confidence=None),
    ]) == [None, Denial(NOT_PERMITTED), Denial("sure"), Denial("sure")]  # fmt: skip  # cases, then verdicts


@pytest.mark.parametrize("extra", ["", " && context.input.age + 0 == context.input.age"])
@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"amount": None}, "input.amount"),
        ({"amount": 1e15}, "input.amount"),
        ({"amount": math.nan}, "input.amount"),
        ({"confidence": math.inf}, "confidence"),
        ({"probability": None}, "output.probability"),
        ({"probability": "high"}, "output.probability"),
    ],
)
def test_what_policies_look_at_and_cedar_cannot_hold_is_never_overlooked(
    extra: str, changes: dict[str, Any], path: str
) -> None:
    authority = answering(
        ("all", "permit", f"true{extra}"),
        ("much", "forbid", 'context.input.amount.greaterThan(decimal("100.0"))'),
        ("unsure", "forbid", 'context has confidence && context.confidence.lessThan(decimal("0.5"))'),
        ("likely", "forbid", 'context.output.probability.lessThan(decimal("0.5"))'),
    )
    assert authority.judged == ("by the engine" if extra else "compiled")
    detail = f"{path} is missing or beyond what a policy can compare"
    assert authority.outside([case(), case(**changes), case(amount=200.0)]) == [
        None,
        Denial(NOT_JUDGED, detail),
        Denial("much"),
    ]
    assert authority.outside([case(discount=math.nan, age=None if not extra else 1)]) == [None]


def test_the_engine_judges_what_is_not_compiled() -> None:
    authority = answering(
        ("all", "permit", "true"),
        ("far", "forbid", 'context.input has home.zip && context.input.home.zip like "9*"'),
        ("late", "forbid", 'context.input has due && context.input.due < datetime("2024-06-01")'),
        ("tag", "forbid", 'context.input has tags && context.input.tags.contains("vip")'),
        ("sum", "forbid", "context.input.age * 1000000000 > 1000000000000"),
        ("many", "forbid", 'context.input has home && context.output.label == "home"'),
    )
    assert authority.judged == "by the engine"
    verdicts = authority.outside([
        case(), case(home={"zip": "90210"}), case(due="2024-05-31"), case(due="2024-06-01"), case(tags=["vip"]),
        case(age=10**10), case(home={}, label="home"), case(age=2_000, tags=["vip"]),
    ])  # fmt: skip  # one a line would fill a page
    assert verdicts == [
        None,
        Denial("far"),
        Denial("late"),
        None,
        Denial("tag"),
        Denial("sum", "policy sum failed"),
        Denial("many"),
        Denial("tag"),
    ]


def test_the_context_holds_only_what_policies_look_at() -> None:
    authority = answering(
        ("a", "permit", 'context.input has home && context.input.home has zip && context.version like "sha256:*"')
    )
    expression = authority.policies[0].conditions[0]["body"]
    pruned = prune(CONTEXT, list(mentions(expression)))
    assert [each.name for each in pruned.fields] == ["input", "version"]
    assert [each.name for each in pruned.fields[0].fields] == ["home"]
    whole = answering(("a", "permit", "context.input == context.input"))
    pruned = prune(CONTEXT, list(mentions(whole.policies[0].conditions[0]["body"])))
    assert pruned.fields[0] == CONTEXT.fields[0]
    everything = answering(("a", "permit", "context == context"))
    assert everything.reads == {each.name for each in CONTEXT.fields}
    assert everything.outside([case()]) == [None]


def test_more_than_ten_policies_keep_their_names() -> None:
    limits = [(f"over-{i}", "forbid", f"context.input.age == {i}") for i in range(25)]
    authority = answering(("all", "permit", "true"), *limits)
    cases = [case(age=i) for i in range(25)]
    expected = [Denial(f"over-{i}") for i in range(25)]
    assert authority.outside(cases) == expected
    assert by_engine(authority)(cases) == expected


# Compiled conditions mean what Cedar means

_LITERALS = ("0.0", "0.5", "-0.5", "0.0001", "100.25", "922337203685477.5807", "-922337203685477.5808", "0.3333")
_decimals = st.sampled_from(_LITERALS)
_longs = st.sampled_from((0, 1, -1, 40, 2**63 - 1, -(2**63)))
_texts = st.sampled_from(("DE", "FR", "", "é\n"))


def _near(text: str) -> list[float]:
    """Doubles around a literal and around the ends of what rounds to it."""
    edges = [float(text) + shift for shift in (-0.00005, 0.0, 0.00005, 0.0001)]
    return [math.nextafter(edge, end) for edge in edges for end in (-math.inf, edge, math.inf)]


_numbers = st.sampled_from([near for text in _LITERALS for near in _near(text)]) | st.floats() | st.integers(-2, 200)


def _quoted(text: str) -> str:
    return '"' + text.replace("\n", "\\n") + '"'


@st.composite
def _decimal_test(draw: st.DrawFn, path: str) -> str:
    literal = f'decimal("{draw(_decimals)}")'
    left, right = draw(st.permutations((path, literal)))
    if draw(st.booleans()):
        return f"{left} {draw(st.sampled_from(('==', '!=')))} {right}"
    method = draw(st.sampled_from(("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual")))
    return f"{left}.{method}({right})"


@st.composite
def _long_test(draw: st.DrawFn) -> str:
    left, right = draw(st.permutations(("context.input.age", str(draw(_longs)))))
    return f"{left} {draw(st.sampled_from(('==', '!=', '<', '<=', '>', '>=')))} {right}"


@st.composite
def _guarded(draw: st.DrawFn, owner: str, name: str, test: st.SearchStrategy[str]) -> str:
    guarded = f"{owner} has {name} && {draw(test)}"
    return draw(st.sampled_from((f"({guarded})", f"!({guarded})", f"{owner} has {name}")))


_text_tests = st.one_of(
    st.builds(lambda text: f"context.input.country == {_quoted(text)}", _texts),
    st.builds(lambda texts: f"[{', '.join(map(_quoted, texts))}].contains(context.input.country)",
              st.lists(_texts, min_size=1, max_size=3)),
)  # fmt: skip  # the argument belongs to its line
_atoms = st.one_of(
    _decimal_test("context.input.amount"),
    _decimal_test("context.output.probability"),
    _guarded("context", "confidence", _decimal_test("context.confidence")),
    _guarded("context.input", "discount", _decimal_test("context.input.discount")),
    _guarded("context.input", "country", _text_tests),
    _guarded("context.input", "open", st.just("context.input.open")),
    _long_test(),
    st.just("context.canary"),
    st.sampled_from(("true", "false")),
    st.builds(lambda text: f"context.output.label != {_quoted(text)}", _texts),
)
_conditions = st.recursive(
    _atoms,
    lambda below: st.one_of(
        st.builds("({} && {})".format, below, below),
        st.builds("({} || {})".format, below, below),
        st.builds("!({})".format, below),
        st.builds("(if {} then {} else {})".format, below, below, below),
    ),
    max_leaves=6,
)
_cases = st.builds(
    case,
    amount=_numbers,
    country=st.none() | _texts,
    age=_longs,
    discount=st.none() | _numbers,
    open=st.none() | st.booleans(),
    probability=_numbers.filter(math.isfinite),
    label=_texts,
    confidence=st.none() | _numbers,
    canary=st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(("permit", "forbid")), _conditions), min_size=1, max_size=3),
       st.lists(_cases, min_size=1, max_size=4))  # fmt: skip  # the two arguments
def test_compiled_conditions_mean_what_cedar_means(written: list[tuple[str, str]], cases: Sequence[AnswerCase]) -> None:
    authority = answering(
        ("last", "permit", "context.canary"),
        *((f"p{i}", effect, condition) for i, (effect, condition) in enumerate(written)),
    )
    assert authority.judged == "compiled"
    ours, theirs = authority.outside(cases), by_engine(authority)(cases)
    assert [each and each.policy for each in ours] == [each and each.policy for each in theirs]


def test_conditions_may_also_be_exceptions() -> None:
    authority = read("""
        @id("all") permit (principal, action == Mainstay::Action::"answer", resource)
          when { context.input.age >= 18 } unless { context.canary } unless { context.output.label == "no" };
    """)
    assert authority.judged == "compiled"
    denied = Denial(NOT_PERMITTED)
    cases = [case(), case(age=17), case(canary=True), case(label="no")]
    assert authority.outside(cases) == [None, denied, denied, denied]
    assert by_engine(authority)(cases) == [None, denied, denied, denied]


# What is refused when a text is read


def test_every_problem_is_told_with_its_line() -> None:
    found = problems("""// 1
@id("one") permit (principal, action == Mainstay::Action::"answer", resource)
when { context.nothing };
permit (principal, action, resource);
@id("one")
permit (principal, action,
  resource) when { tru e };
@id("one") forbid (principal is Mainstay::Robot, action, resource);
@id("five") permit (principal == ?principal, action, resource);
@id("six") permit (principal, action, resource) when { 1 };
@id("seven") permit (principal, action, resource)
""")
    schema = "expected a policy that this folder's schema allows, found"
    syntax = "expected a policy in Cedar's syntax, found"
    assert [each for each in found if "Robot" not in each and "applicable" not in each] == [
        f"a.cedar:2: policy one: {schema} attribute `nothing` in context not found",
        'a.cedar:4: policy 2: expected @id("..."), by which reviews name the policy, found none',
        f"a.cedar:7: policy 3: {syntax} unexpected token `e`",
        'a.cedar:8: policy 4: expected an @id of its own, found "one", which line 2 has too',
        "a.cedar:9: policy 5: expected a policy, found a template, with a slot that nothing fills",
        f"a.cedar:10: policy six: {schema} unexpected type: expected Bool but saw Long",
        f"a.cedar:11: policy 7: {syntax} unexpected end of input",
    ]
    assert any("Mainstay::Robot" in each for each in found)


@pytest.mark.parametrize("text", ["", "// nothing\n", '@id("a") forbid (principal, action, resource);'])
def test_a_text_that_permits_nothing_is_a_problem(text: str) -> None:
    (found,) = problems(text)
    assert found.startswith("a.cedar:1: the document: expected a policy that permits something")


def test_an_optional_attribute_must_be_guarded() -> None:
    with pytest.raises(InvalidDocument, match="unable to guarantee safety of access to optional attribute"):
        answering(("a", "permit", 'context.confidence.lessThan(decimal("1.0"))'))


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ('@id("")', '@id("...")'),
        ("@id", '@id("...")'),
        ('@id("a\\nb")', "an @id of at most 100"),
        (f'@id("{"a" * 101}")', "an @id of at most 100"),
        ('@id("a") @reason("a\\nb")', "a @reason of at most 500"),
        (f'@id("a") @reason("{"a" * 501}")', "a @reason of at most 500"),
    ],
)
def test_annotations_are_short_and_printable(annotations: str, expected: str) -> None:
    (found,) = problems(f"{annotations} permit (principal, action, resource);")
    assert f"expected {expected}" in found


def test_quotes_and_comments_do_not_hide_where_a_policy_ends() -> None:
    text = '@id("a;\\"b") // ; permit (\r@reason("x // y")\npermit (principal, action, resource); // ;\n;'
    assert problems(text) == ["a.cedar:3: policy 2: expected a policy in Cedar's syntax, found unexpected token `;`"]


def test_sizes_are_bounded() -> None:
    (large,) = problems(b" " * (MAX_BYTES + 1))
    assert large == f"a.cedar:1: the document: expected at most {MAX_BYTES} bytes, found {MAX_BYTES + 1}"
    many = "".join(f'@id("{i}") permit (principal, action, resource);\n' for i in range(MAX_POLICIES + 1))
    assert problems(many) == ["a.cedar:1001: the document: expected at most 1000 policies, found 1001"]


def test_bytes_that_are_no_utf_8_are_told_with_their_line() -> None:
    assert problems(b"//\n\xff") == ["a.cedar:2: the document: expected UTF-8, found a byte that is none: 0xff"]


DEEP = {
    "brackets": ("(" * 33, "true", ")" * 33),
    "lists": ("[" * 33, "", "]" * 33),
    "operators": ("true && " * 201, "true", ""),
    "conditionals": ("if true then " * 33, "true", " else true" * 33),
    "accesses": ("context", ".a" * 71, ""),
    "indexes": ("context", '["a"]' * 71, ""),
    "a comment ends with the line": ("// \r" + "(" * 33, "true", ")" * 33),
}


@pytest.mark.parametrize("parts", DEEP.values(), ids=DEEP)
def test_what_is_nested_too_deeply_is_not_given_to_the_parser(parts: tuple[str, str, str]) -> None:
    text = f'@id("a") permit (principal, action, resource) when {{ {"".join(parts)} }};'
    (found,) = problems(text)
    assert "expected a policy that is less deep or is cut in two, found" in found


DEEPEST = """
import sys, threading
from mainstay.authority.policy import parse_authority
from mainstay.authority.schema import CHANGES, MOVES, answer_context
from mainstay.errors import InvalidDocument

MIDDLE = [
    ("true && " * 199, "true", ""),
    ("if true then " * 32, "true", " else true" * 32),
    ("!(" * 29 + "if true then " * 32 + "true && " * 199, "true", " else true" * 32 + ")" * 29),
    ("(" * 30, "true", ")" * 30),
    ("context" + ".a" * 70, " == 1", ""),
    ("true || " * 199, "context.canary", ""),
]

def read():
    for parts in MIDDLE:
        condition = "".join(parts)
        text = f'@id("a") permit (principal, action == Mainstay::Action::"answer", resource) when {{ {condition} }};'
        try:
            parse_authority(text.encode(), "a.cedar", name="late", team="ops", context=answer_context((), ()))
            print("read")
        except InvalidDocument as invalid:
            print(invalid)

threading.stack_size(1 << 20)
thread = threading.Thread(target=read)
thread.start()
thread.join()
print("alive")
"""


def test_the_deepest_policy_that_is_read_fits_a_small_stack() -> None:
    done = subprocess.run([sys.executable, "-c", DEEPEST], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "alive", done.stdout
    assert not done.stderr


@settings(deadline=None)
@given(
    st.text(st.sampled_from('permit (principal,action,resource)when{context.input"a"@id1<=&&;\\\n/[]é'), max_size=80)
)
def test_any_text_is_read_or_refused_with_problems(text: str) -> None:
    assert problems(text)


# A folder


def test_the_authority_of_a_folder_is_read_with_its_contract(tmp_path: Path) -> None:
    declared = load_capability(folders.write_folder(tmp_path))
    authority = compile_authority(declared)
    content = (tmp_path / "authority.cedar").read_bytes()
    assert authority.digest == f"sha256:{sha256(content).hexdigest()}"
    assert authority.may(DESK, "call") is None
    assert authority.may(Person("os:ops"), "change") is None
    assert authority.may(DESK, "change") == Denial(NOT_PERMITTED)
    assert authority.judged == "compiled"


def test_a_folder_without_its_policies_is_a_problem(tmp_path: Path) -> None:
    declared = load_capability(folders.write_folder(tmp_path / "f"))
    (tmp_path / "f" / "authority.cedar").unlink()
    with pytest.raises(InvalidDocument, match=r"authority\.cedar:1: .* found no such file"):
        compile_authority(declared)
    for target in (tmp_path / "elsewhere.cedar", tmp_path / "f" / "authority.cedar"):
        (tmp_path / "elsewhere.cedar").write_text(folders.AUTHORITY)
        (tmp_path / "f" / "authority.cedar").unlink(missing_ok=True)
        (tmp_path / "f" / "authority.cedar").symlink_to(target)
        with pytest.raises(InvalidDocument, match="a link that leaves it, or leads nowhere"):
            compile_authority(declared)
