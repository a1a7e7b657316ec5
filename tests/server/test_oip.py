from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decision.types import DecideRequest
from mainstay.runtime.oip import FLOATS, INTEGERS, write_binary_tensor, write_tensor
from mainstay.server.oip import (
    MAX_ROWS,
    NotInferred,
    OIPSignature,
    compile_signature,
    model_metadata,
    model_ready,
    read_request,
    server_live,
    server_metadata,
    server_ready,
    write_error,
)
from server.oip_cases import (
    DECLARED,
    INPUT,
    MIXED,
    NUMBERS,
    NUMERIC,
    OUTPUT,
    VERSION,
    PropertyList,
    declared_of,
    read,
    records,
    tensor,
    valid,
)

# Metadata


def test_metadata_and_health_are_what_the_specification_says() -> None:
    server = json.loads(server_metadata())
    valid(server, "metadata_server_response")
    assert server["name"] == "mainstay"
    assert server["extensions"] == ["binary_tensor_data"]
    model = json.loads(model_metadata(MIXED))
    valid(model, "metadata_model_response")
    assert model["versions"] == [VERSION]
    assert {each["name"]: (each["datatype"], each["shape"]) for each in model["inputs"]} == {
        "x": ("FP64", [-1]),
        "n": ("INT64", [-1]),
        "ok": ("BOOL", [-1]),
        "text": ("BYTES", [-1]),
        "day": ("BYTES", [-1]),
        "lines": ("BYTES", [-1]),
    }
    assert [each["name"] for each in model["outputs"]] == ["p", "late", "label", "count", "parts"]
    assert json.loads(model["properties"]["optional_inputs"]) == ["n", "ok", "text", "day", "lines"]
    assert json.loads(model["properties"]["outputs_on_request"]) == ["decision_id", "outcome", "version", "confidence"]
    assert json.loads(server_live()) == {"live": True}
    assert json.loads(server_ready()) == {"live": True, "ready": True}
    assert json.loads(model_ready(MIXED)) == {"name": "late", "ready": True}


def test_an_integer_of_the_contract_without_sign_is_uint64() -> None:
    wide: PropertyList = [{"name": "n", "logicalType": "integer", "logicalTypeOptions": {"format": "u64"}}]
    assert compile_signature(declared_of(wide, wide), VERSION).outputs["n"].datatype == "UINT64"


def test_an_output_of_the_contract_goes_before_one_of_ours() -> None:
    output: PropertyList = [{"name": "confidence", "logicalType": "string"}]
    signature = compile_signature(declared_of(INPUT, output), VERSION)
    assert "confidence" not in signature.on_request
    assert signature.outputs["confidence"].datatype == "BYTES"


# From a request to calls


def test_each_row_becomes_the_native_call_of_the_same_record() -> None:
    request = read(
        [
            tensor("x", "FP64", [1.5, 2.0]),
            tensor("n", "INT64", [1, -2]),
            tensor("ok", "BOOL", [True, False]),
            tensor("text", "BYTES", ["a\n", "é"]),
            tensor("day", "BYTES", ["2024-01-01", "2024-01-02"]),
            tensor("lines", "BYTES", ['["a",\n "b"]', "[]"]),
        ],
        id="42",
    )
    assert request.calls == [
        b'{"input":{"x":1.5,"n":1,"ok":true,"text":"a\\n","day":"2024-01-01","lines":["a","b"]}}',
        '{"input":{"x":2.0,"n":-2,"ok":false,"text":"é","day":"2024-01-02","lines":[]}}'.encode(),
    ]
    assert request.request_id == "42"
    assert [port.name for port, _ in request.outputs] == ["p", "late", "label", "count", "parts"]
    for call in request.calls:
        msgspec.json.decode(call, type=DecideRequest)


json_texts = st.text(st.characters(codec="utf-8"), max_size=5)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "x": st.floats(allow_nan=False, allow_infinity=False),
            "n": st.integers(-(2**63), 2**63 - 1),
            "ok": st.booleans(),
            "text": json_texts,
            "day": st.dates().map(str),
            "lines": st.lists(json_texts, max_size=2),
        }
    ),
    min_size=1,
    max_size=3,
)


@given(rows, st.sets(st.sampled_from(["n", "ok", "text", "day", "lines"])), st.booleans(), st.booleans())
def test_the_contract_reads_the_same_values_from_a_row_as_from_the_native_record(
    given_rows: list[dict[str, Any]], absent: set[str], as_column: bool, as_binary: bool
) -> None:
    inputs, behind = [], []
    for name, port in MIXED.inputs.items():
        if name in absent:
            continue
        elements = [json.dumps(row[name]) if name == "lines" else row[name] for row in given_rows]
        shape = (len(elements), 1) if as_column else (len(elements),)
        if as_binary:
            made, content = write_binary_tensor(name, port.datatype, shape, elements)
            behind.append(content)
        else:
            made = write_tensor(name, port.datatype, shape, elements)
        inputs.append(made)
    head = msgspec.json.encode({"inputs": inputs})
    headers = {"inference-header-content-length": str(len(head))} if as_binary else {}
    request = read_request(MIXED, headers, b"".join((head, *behind)))
    for call, row in zip(request.calls, given_rows, strict=True):
        native = json.dumps({name: value for name, value in row.items() if name not in absent}).encode()
        through_protocol = msgspec.json.decode(call, type=DecideRequest).input
        assert DECLARED.input.decode(through_protocol) == DECLARED.input.decode(native)


@pytest.mark.parametrize("name", ["input", "x", "anything"])
@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT16"])
def test_one_matrix_may_hold_all_properties_that_are_numbers(name: str, datatype: str) -> None:
    request = read([tensor(name, datatype, [[1, 2, 3], [4, 5, 6]], [2, 3])], NUMERIC)
    assert records(request) == [{"x": 1, "n": 2, "y": 3}, {"x": 4, "n": 5, "y": 6}]
    assert all(type(record["n"]) is int for record in records(request))


def test_a_fraction_where_the_contract_wants_an_integer_is_left_for_the_contract_to_refuse() -> None:
    request = read([tensor("input", "FP64", [1, 2.5, 3], [1, 3])], NUMERIC)
    assert records(request) == [{"x": 1.0, "n": 2.5, "y": 3.0}]


def test_a_single_number_may_be_a_tensor_of_any_name_with_one_column() -> None:
    signature = compile_signature(declared_of(NUMBERS[:1], OUTPUT), VERSION)
    assert records(read([tensor("predict", "FP32", [0.5, 1], [2, 1])], signature)) == [{"x": 0.5}, {"x": 1.0}]


@pytest.mark.parametrize("datatype", sorted(FLOATS | INTEGERS))
def test_any_numeric_datatype_fills_numbers_and_integers(datatype: str) -> None:
    request = read([tensor("x", datatype, [1, 2]), tensor("n", datatype, [3, 4])])
    assert records(request) == [{"x": 1, "n": 3}, {"x": 2, "n": 4}]
    assert type(records(request)[0]["n"]) is int


def test_nan_and_null_say_that_a_value_is_missing() -> None:
    content = np.array([1.0, math.nan], "<f8").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": 16}},
                tensor("n", "INT64", [None, 1]),
            ]
        }
    ).encode()
    request = read_request(MIXED, {"inference-header-content-length": str(len(head))}, head + content)
    assert records(request) == [{"x": 1.0, "n": None}, {"x": None, "n": 1}]


def test_business_keys_and_a_deadline_come_as_parameters() -> None:
    inputs = [tensor("x", "FP64", [1.0, 2.0])]
    as_list = read(inputs, parameters={"keys": ["A", None], "deadline_ms": 50})
    assert as_list.calls == [b'{"input":{"x":1.0},"key":"A","deadline_ms":50}', b'{"input":{"x":2.0},"deadline_ms":50}']
    as_text = read(inputs, parameters={"keys": '["A", null]', "deadline_ms": 50})
    assert as_text.calls == as_list.calls


def test_parameters_that_are_not_known_are_ignored() -> None:
    assert read([tensor("x", "FP64", [1.0])], parameters={"timeout": 5, "sequence_id": 3}, outputs=[]).calls


@pytest.mark.parametrize(
    ("inputs", "members", "said"),
    [
        ([], {}, "expected input tensors of x, n, ok, text, day, lines; found none"),
        ([tensor("x", "FP64", [1.0])] * 7, {}, "expected at most 6 input tensors, found 7"),
        ([tensor("x", "FP64", [1.0])] * 2, {}, "expected each tensor once, found x twice"),
        ([tensor("y", "FP64", [1.0])], {}, "expected input tensors of the contract, found y"),
        ([tensor("txet", "BYTES", ["a"])], {}, r"found txet \(did you mean text\?\)"),
        ([tensor("x", "FP64", [], [0])], {}, "tensor x: expected 1 to 10000 rows, found 0"),
        ([tensor("x", "FP64", [1.0], [MAX_ROWS + 1])], {}, "tensor x: expected 1 to 10000 rows, found 10001"),
        ([tensor("x", "FP64", [1.0], [-1])], {}, "expected 1 to 10000 rows, found -1"),
        ([tensor("x", "FP64", [1.0], [10**40])], {}, "expected 1 to 10000 rows, found 1000"),
        ([{**tensor("x", "FP64", [1.0]), "shape": []}], {}, "expected a shape of 1 or 2 dimensions, found 0"),
        ([tensor("x", "FP64", [1.0, 2.0], [1, 2])], {}, "expected a tensor for each property, since ok, text, day"),
        (
            [tensor("x", "FP64", [1.0, 2.0], [1, 2]), tensor("n", "INT64", [1])],
            {},
            r"tensor x: expected the shape \[1\], found \[1, 2\]",
        ),
        (
            [tensor("x", "FP64", [1.0]), tensor("n", "INT64", [1, 2])],
            {},
            "expected as many rows in every tensor, found: x has 1, n has 2",
        ),
        ([tensor("x", "BYTES", ["1"])], {}, r"expected datatype FP64 \(or another numeric datatype\), found BYTES"),
        ([tensor("x", "BOOL", [True])], {}, "expected datatype FP64"),
        ([tensor("ok", "INT8", [1])], {}, "tensor ok: expected datatype BOOL, found INT8"),
        ([tensor("text", "FP64", [1])], {}, "tensor text: expected datatype BYTES, found FP64"),
        ([tensor("x", "FP32", [0.0, 1e39])], {}, "tensor x: expected finite numbers, found infinity in row 1"),
        ([tensor("lines", "BYTES", ["[]", "["])], {}, "tensor lines: expected JSON texts, found in row 1"),
        ([tensor("lines", "BYTES", ["[" * 100_000])], {}, "tensor lines: expected JSON texts, found in row 0"),
        ([tensor("x", "FP64", [1.0])], {"outputs": [{"name": "q"}]}, "expected outputs of the contract, found q"),
        ([tensor("x", "FP64", [1.0])], {"outputs": [{"name": "p"}] * 2}, "expected each output once, found p twice"),
        (
            [tensor("x", "FP64", [1.0])],
            {"outputs": [{"name": "p", "parameters": {"classification": 3}}]},
            "output p: classification is not an extension",
        ),
        (
            [tensor("x", "FP64", [1.0])],
            {"parameters": {"keys": ["a", "b"]}},
            "expected one for each of 1 rows, found 2",
        ),
        ([tensor("x", "FP64", [1.0])], {"parameters": {"keys": [1]}}, "expected a list of texts or null"),
        ([tensor("x", "FP64", [1.0])], {"parameters": {"keys": "a"}}, "expected a list of texts or the JSON of one"),
        ([tensor("x", "FP64", [1.0])], {"parameters": {"keys": ["a" * 513]}}, "expected at most 512 characters"),
        *(
            (
                [tensor("x", "FP64", [1.0])],
                {"parameters": {"deadline_ms": value}},
                "deadline_ms: expected a number of 1",
            )
            for value in (0, "1", True, 10**300, 1e300)
        ),
        ([tensor("x", "FP64", [1.0])], {"id": 7}, "Expected `str"),
    ],
)
def test_a_request_that_is_none_is_refused_with_what_was_expected(
    inputs: list[dict[str, Any]], members: dict[str, Any], said: str
) -> None:
    with pytest.raises(NotInferred, match=said) as refused:
        read(inputs, **members)
    assert refused.value.status == 400
    answer = write_error(refused.value.status, str(refused.value))
    valid(json.loads(answer.body), "inference_error_response")


def test_a_matrix_of_another_width_is_refused() -> None:
    with pytest.raises(NotInferred, match=r"tensor input: expected 3 columns \(x, n, y\), found 2"):
        read([tensor("input", "FP64", [1, 2], [1, 2])], NUMERIC)


def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(NotInferred, match=r"expected a body without content-encoding, found gzip") as refused:
        read_request(MIXED, {"content-encoding": "gzip"}, b"")
    assert refused.value.status == 415


@pytest.mark.parametrize("digits", [400, 4_299, 4_300, 4_301, 100_000])
@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [{"name": "x", "shape": [%b], "datatype": "FP64", "data": [1]}]}',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [%b]}]}',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "UINT64", "data": [%b]}]}',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": %b}}]}',
        (
            b'{"parameters": {"deadline_ms": %b},'
            b' "inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]}'
        ),
    ],
)
def test_a_number_of_any_length_is_refused_where_it_does_not_fit(body: bytes, digits: int) -> None:
    with pytest.raises(NotInferred, match=r"expected|out of range"):
        read_request(MIXED, {}, body % (b"9" * digits))


VALID = {
    "id": "1",
    "parameters": {"keys": ["a", "b"], "deadline_ms": 5, "binary_data_output": True},
    "inputs": [
        tensor("x", "FP64", [[1.0], [2.0]], [2, 1]),
        tensor("n", "INT64", [1, 2]),
        tensor("text", "BYTES", ["a", "b"]),
        tensor("lines", "BYTES", ["[]", "[1]"]),
    ],
    "outputs": [{"name": "p", "parameters": {"binary_data": True}}],
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below, max_size=3),
    max_leaves=8,
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for name, item in members for below in paths_of(item, (*path, name)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


def check_read(headers: dict[str, str], body: bytes, signature: OIPSignature = MIXED) -> None:
    try:
        request = read_request(signature, headers, body)
    except NotInferred:
        return
    assert 1 <= len(request.calls) <= MAX_ROWS
    for call in request.calls:
        assert b"\n" not in call
        msgspec.json.decode(call, type=DecideRequest)


@given(st.sampled_from(paths_of(VALID)), anything, st.sampled_from([MIXED, NUMERIC]))
def test_a_request_with_anything_anywhere_is_read_or_refused(
    path: tuple[Any, ...], new: Any, signature: OIPSignature
) -> None:
    check_read({}, json.dumps(replaced(VALID, path, new)).encode(), signature)


@given(st.integers(0, 600), st.binary(max_size=4), st.integers(0, 4))
def test_a_request_with_any_bytes_changed_is_read_or_refused(at: int, new: bytes, cut: int) -> None:
    body = json.dumps(VALID).encode()
    check_read({}, body[:at] + new + body[at + cut :])


@given(st.binary(max_size=80), st.none() | st.integers(0, 80).map(str) | st.text(max_size=4))
def test_arbitrary_bytes_are_read_or_refused(body: bytes, length: str | None) -> None:
    check_read({} if length is None else {"inference-header-content-length": length}, body)


@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 3), st.sampled_from(["x", "ok", "text", "lines"]))
def test_arbitrary_binary_data_is_read_or_refused(content: bytes, size: int, count: int, name: str) -> None:
    port = MIXED.inputs[name]
    inputs = [{"name": name, "shape": [count], "datatype": port.datatype, "parameters": {"binary_data_size": size}}]
    head = json.dumps({"inputs": inputs}).encode()
    check_read({"inference-header-content-length": str(len(head))}, head + content)
