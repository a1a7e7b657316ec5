from __future__ import annotations

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.samples import KEY, ORIGIN
from mainstay.errors import Damaged, InvalidDocument, Misuse
from mainstay.ledger.cosignature import CosigningKey
from mainstay.ledger.note import Checkpoint, add_signatures, format_checkpoint, sign_checkpoint, sign_note
from mainstay.ledger.trust_policy import MAX_DEFINITIONS, parse_policy, shown
from mainstay.signing import SigningKey

CHECKPOINT = Checkpoint(ORIGIN, 70_000, bytes(range(32)))
TEXT = format_checkpoint(CHECKPOINT)
NOTE = sign_checkpoint(CHECKPOINT, KEY)
LOG = KEY.verifier.vkey


def witness(name: str) -> CosigningKey:
    return CosigningKey(
        f"witness.example.com/{name}", Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())
    )


NAMES = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
KEYS = {name: witness(name) for name in NAMES}
VKEYS = {name: key.verifier.vkey for name, key in KEYS.items()}

EXAMPLE = f"""\
log {LOG}

witness X1 {VKEYS["X1"]}
witness X2 {VKEYS["X2"]}
witness X3 {VKEYS["X3"]}
group X-witnesses 2 X1 X2 X3

witness Y1 {VKEYS["Y1"]}
witness Y2 {VKEYS["Y2"]}
witness Y3 {VKEYS["Y3"]}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def cosigned(*names: str, note: bytes = NOTE) -> bytes:
    return add_signatures(note, [KEYS[name].cosign(TEXT, 1_000 + at) for at, name in enumerate(names)])


@given(st.sets(st.sampled_from(NAMES)))
def test_the_example_of_the_specification_asks_for_two_of_x_and_one_of_y(names: set[str]) -> None:
    verdict = parse_policy(EXAMPLE.encode()).evaluate(cosigned(*sorted(names)))
    assert verdict.satisfied == (len(names & {"X1", "X2", "X3"}) >= 2 and len(names & {"Y1", "Y2", "Y3"}) >= 1)
    assert [each.witness for each in verdict.cosigned] == sorted(names)
    assert set(verdict.missing) == set(NAMES) - names
    assert (verdict.checkpoint, verdict.log) == (CHECKPOINT, ORIGIN)
    assert verdict.time == (1_000 + len(names) - 1 if names else 0)


def test_a_single_witness_or_none_may_be_the_quorum() -> None:
    one = parse_policy(f"log {LOG}\nwitness X1 {VKEYS['X1']} https://w.example.com/\nquorum X1\n".encode())
    assert one.witnesses[0].url == "https://w.example.com/"
    assert not one.evaluate(NOTE).satisfied
    assert not one.evaluate(cosigned("X2")).satisfied
    assert one.evaluate(cosigned("X1", "X2")).satisfied
    assert parse_policy(f"log {LOG}\nquorum none\n".encode()).evaluate(NOTE).satisfied


def test_a_checkpoint_that_no_known_log_signed_is_refused() -> None:
    other = SigningKey("log.example.com/other", Ed25519PrivateKey.generate())
    policy = parse_policy(EXAMPLE.encode())
    with pytest.raises(Damaged, match="expected a signature by"):
        policy.evaluate(sign_checkpoint(Checkpoint(other.name, 1, bytes(32)), other))
    with pytest.raises(Damaged, match="expected a signature by"):  # the right key, for a log of another name
        policy.evaluate(sign_checkpoint(Checkpoint(other.name, 1, bytes(32)), KEY))
    with pytest.raises(Damaged, match="expected an origin"):
        policy.evaluate(sign_note("no checkpoint\n", KEY))


def test_the_logs_may_be_known_from_elsewhere() -> None:
    policy = parse_policy(b"quorum none\n")
    with pytest.raises(Misuse, match="lists no log"):
        policy.evaluate(NOTE)
    assert policy.evaluate(NOTE, [KEY.verifier]).satisfied
    listed = parse_policy(f"log {witness('log').verifier.vkey}\nquorum none\n".encode())
    with pytest.raises(Damaged, match="expected a signature by"):
        listed.evaluate(NOTE, [KEY.verifier])


def test_any_of_several_logs_will_do() -> None:
    keys = [SigningKey(f"log.example.com/{at}", Ed25519PrivateKey.generate()) for at in range(32)]
    policy = parse_policy("".join(f"log {key.verifier.vkey}\n" for key in keys).encode() + b"quorum none\n")
    for key in keys:
        assert policy.evaluate(sign_checkpoint(Checkpoint(key.name, 1, bytes(32)), key)).log == key.name


def test_a_note_with_a_wrong_signature_of_a_known_key_is_refused_and_of_an_unknown_one_is_not() -> None:
    policy = parse_policy(f"log {LOG}\nwitness X1 {VKEYS['X1']}\nquorum X1\n".encode())
    wrong = KEYS["X1"].cosign(TEXT.replace("70000", "70001"), 5)
    with pytest.raises(Damaged, match="not over this text"):
        policy.evaluate(add_signatures(NOTE, [wrong]))
    unknown = KEYS["X2"].cosign(TEXT.replace("70000", "70001"), 5)
    assert policy.evaluate(cosigned("X1", note=add_signatures(NOTE, [unknown]))).satisfied


def test_groups_count_groups_and_each_witness_once() -> None:
    lines = [f"log {LOG}", *(f"witness {name} {VKEYS[name]}" for name in NAMES)]
    lines += ["group a any X1 X2", "group b all X3 Y1", "group c 2 a b Y2", "quorum c", ""]
    policy = parse_policy("\n".join(lines).encode())
    for names, satisfied in [
        (["X1", "X2"], False),
        (["X1", "X3"], False),
        (["X1", "X3", "Y1"], True),
        (["X2", "Y2"], True),
        (["X3", "Y1", "Y2"], True),
        (["Y2", "Y3"], False),
    ]:
        assert policy.evaluate(cosigned(*names)).satisfied is satisfied, names


def test_space_comments_empty_lines_and_order_do_not_matter() -> None:
    text = (
        f"\n  # a comment\n\t\nwitness\tX1  \t{VKEYS['X1']}\n# quorum none\n quorum \t X1 \nlog {LOG}\n"
        f"witness X2 {VKEYS['X2']}\n"
    )
    policy = parse_policy(text.encode())
    assert (policy.quorum, len(policy.logs), len(policy.witnesses)) == ("X1", 1, 2)


def test_names_are_octets_and_are_shown_without_control_characters() -> None:
    kelvin = "\N{KELVIN SIGN}".encode()
    lines = [
        b"witness K " + VKEYS["X1"].encode(),
        b"witness " + kelvin + b" " + VKEYS["X2"].encode(),
        b"witness \xff\xc2\x9b " + VKEYS["X3"].encode() + b" https://w.example.com/\xfe",
        b"group g 2 K " + kelvin + b" \xff\xc2\x9b",
        b"quorum g",
        b"",
    ]
    policy = parse_policy(b"\n".join(lines))
    assert policy.evaluate(cosigned("X1", "X3"), [KEY.verifier]).satisfied
    assert not policy.evaluate(cosigned("X1"), [KEY.verifier]).satisfied
    assert [shown(each.name) for each in policy.witnesses] == ["K", "\N{KELVIN SIGN}", "\\xff\\x9b"]
    # U+00A0 and U+2003 are spaces to Unicode and parts of a name here
    spaced = b"witness a\xc2\xa0b\xe2\x80\x83c " + VKEYS["X1"].encode() + b"\nquorum a\xc2\xa0b\xe2\x80\x83c\n"
    assert parse_policy(spaced).evaluate(cosigned("X1"), [KEY.verifier]).satisfied


WITNESS = f"witness w {VKEYS['X1']}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "one quorum line"),
        (WITNESS, "one quorum line"),
        (WITNESS + "quorum w\nquorum w\n", "found another"),
        (WITNESS + "quorum w\nquorum none\n", "found another"),
        ("quorum w\n" + WITNESS, "defined on a line before"),
        (WITNESS + "quorum w", "newline behind the last line"),
        (WITNESS + "quorum w\r\n", "0x0d"),
        (WITNESS + "quorum w\x00\n", "0x00"),
        (WITNESS + "quorum w\x7f\n", "0x7f"),
        (WITNESS + "quorum W\n", "found W"),
        (WITNESS + "quorum w w\n", "one name"),
        (WITNESS + "quorum\n", "one name"),
        (WITNESS + "Quorum w\n", "log, witness, group or quorum"),
        (WITNESS + WITNESS + "quorum w\n", "a name of its own"),
        (WITNESS + f"witness v {VKEYS['X1']}\nquorum w\n", "each public key once"),
        (f"witness none {VKEYS['X1']}\nquorum none\n", "a name of its own"),
        (WITNESS + "group none any w\nquorum none\n", "a name of its own"),
        (WITNESS + "group g any none\nquorum g\n", "members defined"),
        (WITNESS + "group g any g\nquorum g\n", "members defined"),
        (WITNESS + "group g any v\nquorum g\n", "members defined"),
        (WITNESS + "group g any w w\nquorum g\n", "as a member once"),
        (WITNESS + "group g any w\ngroup h any w\nquorum g\n", "as a member once"),
        (WITNESS + "group w any w\nquorum w\n", "a name of its own"),
        (WITNESS + "group g any\nquorum w\n", "at least one member"),
        (WITNESS + "group g 0 w\nquorum g\n", "a number from 1 to 1"),
        (WITNESS + "group g 2 w\nquorum g\n", "a number from 1 to 1"),
        (WITNESS + "group g 01 w\nquorum g\n", "a number from 1 to 1"),
        (WITNESS + "group g \N{ARABIC-INDIC DIGIT ONE} w\nquorum g\n", "a number from 1 to 1"),
        (WITNESS + "group g most w\nquorum g\n", "a number from 1 to 1"),
        (f"witness {VKEYS['X1']}\nquorum none\n", "a name, a verifier key"),
        (f"witness w {VKEYS['X1']} url more\nquorum none\n", "a name, a verifier key"),
        (f"witness w {LOG}\nquorum w\n", "type 0x01"),
        ("witness w no-key\nquorum w\n", "name+id+key"),
        ("log no-key\nquorum none\n", "name+id+key"),
        ("log\nquorum none\n", "a verifier key and perhaps a URL"),
        (f"log {LOG} url more\nquorum none\n", "a verifier key and perhaps a URL"),
        (f"log {LOG}\nlog {LOG}\nquorum none\n", "each public key once"),
        (f"log {VKEYS['X1'][:-3]}xx=\nquorum none\n", "log"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse_policy(text.encode(), "witnesses.policy")
    assert said in str(refused.value)
    assert all(problem.file == "witnesses.policy" for problem in refused.value.problems)
    assert all(1 <= problem.line <= text.count("\n") + 1 for problem in refused.value.problems)


def test_one_public_key_is_one_witness_whatever_its_name() -> None:
    private = Ed25519PrivateKey.generate()
    vkeys = [CosigningKey(name, private).verifier.vkey for name in ("one.example.com", "two.example.com")]
    with pytest.raises(InvalidDocument, match="each public key once"):
        parse_policy("".join(f"witness w{at} {vkey}\n" for at, vkey in enumerate(vkeys)).encode() + b"quorum none\n")


def test_every_problem_is_named() -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse_policy(b"what\nlog\nwitness\ngroup\nquorum\n")
    assert [problem.line for problem in refused.value.problems] == [1, 2, 3, 4, 5]


def test_a_policy_is_bounded() -> None:
    with pytest.raises(InvalidDocument, match="at most"):
        parse_policy(b"#" * (1 << 20) + b"\n")
    many = "".join(f"group g{at} any {'w' if at == 0 else f'g{at - 1}'}\n" for at in range(MAX_DEFINITIONS))
    with pytest.raises(InvalidDocument, match="at most 1,000"):
        parse_policy((WITNESS + many + "quorum w\n").encode())
    fitting = WITNESS + "".join(many.splitlines(keepends=True)[:-1]) + f"quorum g{MAX_DEFINITIONS - 2}\n"
    assert parse_policy(fitting.encode()).evaluate(cosigned("X1"), [KEY.verifier]).satisfied


@given(st.binary(max_size=200), st.text("logwitnessgroupquorumnone \t\n#ga1", max_size=200))
def test_bytes_that_are_no_policy_are_refused_and_nothing_else(content: bytes, text: str) -> None:
    for attempt in (content, text.encode(), WITNESS.encode() + text.encode() + b"\n"):
        try:
            assert parse_policy(attempt).quorum
        except InvalidDocument:
            continue
