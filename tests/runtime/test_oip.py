from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mainstay.runtime.oip import (
    BINARY_SIZE,
    DATATYPES,
    FLOATS,
    BrokenMessage,
    InferenceRequest,
    InferenceResponse,
    Tensor,
    Values,
    decode_document,
    join_body,
    read_tensors,
    split_body,
    write_binary_tensor,
    write_tensor,
)
from shared_data import shared_data

NOTHING = memoryview(b"")
INTEGER_BITS = {name: int(name.lstrip("UINT")) for name in DATATYPES if "INT" in name}


def read(shape: list[int], datatype: str, data: str | None, *, size: Any = None, binary: bytes = b"") -> list[Any]:
    tensor = Tensor(
        name="t",
        shape=tuple(shape),
        datatype=datatype,
        parameters=None if size is None else {BINARY_SIZE: size},
        data=msgspec.UNSET if data is None else Raw(data.encode()),
    )
    return read_tensors([tensor], memoryview(binary), max_elements=1_000)["t"].elements


def elements_of(datatype: str) -> st.SearchStrategy[Any]:
    if datatype in FLOATS:
        return st.floats(allow_nan=False, allow_infinity=False, width={"FP16": 16, "FP32": 32, "FP64": 64}[datatype])  # type: ignore[arg-type]  # a width out of a table
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(st.characters(codec="utf-8"))
    bits = INTEGER_BITS[datatype]
    low, high = (0, 2**bits - 1) if datatype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.integers(low, high)


tensors = st.sampled_from(sorted(DATATYPES)).flatmap(
    lambda datatype: st.tuples(st.just(datatype), st.lists(elements_of(datatype), max_size=6))
)


@given(tensors)
def test_a_tensor_is_read_as_it_was_written_as_json_and_as_binary_data(written: tuple[str, list[Any]]) -> None:
    datatype, elements = written
    shape = [len(elements)]
    as_json = write_tensor("t", datatype, shape, elements)
    as_binary, content = write_binary_tensor("t", datatype, shape, elements)
    expected = {"t": Values("t", datatype, (len(elements),), elements)}
    assert read_tensors([as_json], NOTHING, max_elements=10) == expected
    assert read_tensors([as_binary], memoryview(content), max_elements=10) == expected


@given(tensors, st.integers(1, 3))
def test_nested_and_flat_data_are_the_same_tensor(written: tuple[str, list[Any]], columns: int) -> None:
    datatype, elements = written
    elements = elements[: len(elements) // columns * columns]
    nested = [elements[at : at + columns] for at in range(0, len(elements), columns)]
    shape = [len(nested), columns]
    flat = read(shape, datatype, json.dumps(elements))
    assert read(shape, datatype, json.dumps(nested)) == flat == elements


def test_the_specifications_natural_and_flat_examples_are_the_same_tensor() -> None:
    examples = json.loads(shared_data("protocols", "open_inference_protocol", "spec_examples.json").read_bytes())
    natural = next(each for each in examples if each["case"] == "natural-format tensor data")
    assert read([2, 2], "UINT32", json.dumps(natural["body"]["data"])) == natural["equivalent_to"]["data"]


def test_the_specifications_printed_request_is_refused_for_its_wrong_shape() -> None:
    examples = json.loads(shared_data("protocols", "open_inference_protocol", "spec_examples.json").read_bytes())
    request = decode_document(json.dumps(examples[0]["body"]).encode(), InferenceRequest)
    assert request.id == "42"
    with pytest.raises(BrokenMessage, match=r"tensor input1: expected 3 elements by its shape, found 1"):
        read_tensors(request.inputs, NOTHING, max_elements=100)


def test_null_says_that_an_element_is_missing() -> None:
    number, text = read([2], "FP64", "[1, null]"), read([2], "BYTES", '["a", null]')
    assert number[0] == 1.0
    assert math.isnan(number[1])
    assert text == ["a", None]


def test_a_float_is_what_its_datatype_holds() -> None:
    assert read([1], "FP32", "[0.1]") == [float(np.float32(0.1))]
    assert read([1], "FP32", "[1e39]") == [math.inf]
    assert read([1], "FP16", "[0.1]") == [float(np.float16(0.1))]


def test_a_column_of_a_matrix_is_every_so_manyth_element() -> None:
    tensor = Values("t", "INT8", (2, 3), [1, 2, 3, 4, 5, 6])
    assert [tensor.column(place) for place in range(3)] == [[1, 4], [2, 5], [3, 6]]
    assert Values("t", "INT8", (2,), [1, 2]).column(0) == [1, 2]


@pytest.mark.parametrize(
    ("shape", "datatype", "data", "said"),
    [
        ([1], "BF16", "[1]", "expected a datatype of BOOL, .* found BF16"),
        ([], "FP64", "[]", "expected a shape of 1 or 2 dimensions, found 0"),
        ([1, 1, 1], "FP64", "[1]", "expected a shape of 1 or 2 dimensions, found 3"),
        ([-1], "FP64", "[1]", r"expected a shape of 0 to 1000 elements, found \[-1\]"),
        ([10**30], "FP64", "[1]", "expected a shape of 0 to 1000 elements"),
        ([1_000, 1_000], "FP64", "[1]", "expected a shape of 0 to 1000 elements"),
        ([0, 10**30], "FP64", "[]", "expected a shape of 0 to 1000 elements"),
        ([2], "FP64", "[1]", "expected 2 elements by its shape, found 1"),
        ([2], "FP64", "[[1], [2]]", r"Expected `float \| null`, got `array`"),
        ([2, 2], "FP64", "[[1, 2, 3], [4]]", "expected data nested as its shape"),
        ([2, 2], "FP64", "[[1, 2]]", "expected data nested as its shape"),
        ([1], "FP64", '["1"]', r"Expected `float \| null`, got `str`"),
        ([1], "FP64", "[1e999]", "out of range"),
        ([1], "FP64", "{}", "Expected `array`"),
        ([1], "INT64", "[1.5]", r"Expected `int \| null`, got `float`"),
        ([1], "INT8", "[128]", "127"),
        ([1], "UINT8", "[-1]", "0"),
        ([1], "INT64", "[9223372036854775808]", "9223372036854775807"),
        ([1], "UINT64", "[18446744073709551616]", "expected at most 18446744073709551615"),
        ([1], "BOOL", "[1]", r"Expected `bool \| null`, got `int`"),
        ([1], "BYTES", "[1]", r"Expected `str \| null`, got `int`"),
        ([1], "BYTES", None, "expected data, or binary_data_size among its parameters; found neither"),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_refused(
    shape: list[int], datatype: str, data: str | None, said: str
) -> None:
    with pytest.raises(BrokenMessage, match=said):
        read(shape, datatype, data)


@pytest.mark.parametrize(
    ("shape", "datatype", "size", "binary", "said"),
    [
        ([1], "FP64", 8, b"1234567", "expected a binary_data_size of 0 to the 7 bytes left, found 8"),
        ([1], "FP64", -1, b"", "expected a binary_data_size of 0"),
        ([1], "FP64", "8", b"12345678", "expected a binary_data_size of 0"),
        ([1], "FP64", True, b"1", "expected a binary_data_size of 0"),
        ([2], "FP64", 8, b"12345678", "expected 16 bytes by its shape and datatype, found 8"),
        ([1], "INT8", 1, b"12", "expected no binary data but that of tensors, found 1 more"),
        ([1], "BOOL", 1, b"\x02", "expected bytes of 0 or 1"),
        ([1], "BYTES", 3, b"\x00\x00\x00", "expected 1 elements, found 0 and 3 bytes"),
        ([1], "BYTES", 5, b"\x02\x00\x00\x00a", "expected 1 elements, found 0 and 5 bytes"),
        ([1], "BYTES", 10, b"\x01\x00\x00\x00a" * 2, "expected 1 elements, found 1 and 5 bytes"),
        ([2], "BYTES", 5, b"\x01\x00\x00\x00a", "expected 2 elements, found 1 and 0 bytes"),
        ([1], "BYTES", 5, b"\x01\x00\x00\x00\xff", "expected UTF-8, found other bytes in element 0"),
    ],
)
def test_binary_data_that_does_not_fit_is_refused(
    shape: list[int], datatype: str, size: Any, binary: bytes, said: str
) -> None:
    with pytest.raises(BrokenMessage, match=said):
        read(shape, datatype, None, size=size, binary=binary)


def test_data_and_binary_data_at_once_are_refused() -> None:
    with pytest.raises(BrokenMessage, match=r"expected data or binary_data_size, found both"):
        read([1], "INT8", "[1]", size=1, binary=b"1")


def test_a_tensor_that_stands_twice_is_refused() -> None:
    tensor = write_tensor("t", "INT8", [1], [1])
    with pytest.raises(BrokenMessage, match=r"expected each tensor once, found t twice"):
        read_tensors([tensor, tensor], NOTHING, max_elements=1)


@pytest.mark.parametrize("length", ["", "-1", "5", "1.0", "9" * 5_000, "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_header_length_that_is_none_is_refused(length: str) -> None:
    with pytest.raises(BrokenMessage, match=r"expected an Inference-Header-Content-Length of 0 to the 4 bytes"):
        split_body(b"1234", length)


def test_a_body_is_split_where_its_header_says() -> None:
    tensor, content = write_binary_tensor("t", "INT16", [2], [1, -1])
    headers, body = join_body(InferenceRequest(inputs=(tensor,)), [content])
    document, rest = split_body(body, dict(headers)["inference-header-content-length"])
    request = decode_document(document, InferenceRequest)
    assert read_tensors(request.inputs, rest, max_elements=2)["t"].elements == [1, -1]
    assert bytes(rest) == b"\x01\x00\xff\xff"  # little-endian, as the extension says
    assert split_body(b"{}", None) == (memoryview(b"{}"), NOTHING)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"inputs": 1}', b"\xff", b"[" * 100_000])
def test_a_document_of_another_form_is_refused(content: bytes) -> None:
    with pytest.raises(BrokenMessage, match=r"expected an inference request"):
        decode_document(content, InferenceRequest)


@given(st.binary(max_size=60), st.none() | st.integers(0, 60).map(str) | st.text(max_size=3))
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(body: bytes, length: str | None) -> None:
    try:
        document, rest = split_body(body, length)
        read_tensors(decode_document(document, InferenceResponse).outputs, rest, max_elements=10)
    except BrokenMessage:
        pass
