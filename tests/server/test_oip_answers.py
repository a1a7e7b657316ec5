from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tritonclient.http import (  # type: ignore[import-untyped]  # ships no types
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
)

from mainstay.decision.types import REASONS
from mainstay.server.oip import InferRequest, read_request, write_response
from server.oip_cases import IDS, MIXED, VERSION, decision, read, records, tensor, valid


def test_an_answer_is_what_the_specification_says() -> None:
    request = read([tensor("x", "FP64", [1.0, 2.0])], id="42")
    answer = write_response(MIXED, request, [decision(0), decision(1, outcome="fallback", release=7)])
    assert (answer.status, answer.headers) == (200, [("content-type", "application/json")])
    document = json.loads(answer.body)
    valid(document, "inference_response")
    assert document == {
        "model_name": "late",
        "model_version": VERSION,
        "id": "42",
        "parameters": {"decision_ids": f"{IDS[0]},{IDS[1]}", "outcomes": "answered,fallback", "release": 7},
        "outputs": [
            tensor("p", "FP64", [0.1, 0.1]),
            tensor("late", "BOOL", [False, False]),
            tensor("label", "BYTES", ["é", "é"]),
            tensor("count", "INT64", [3, 3]),
            tensor("parts", "BYTES", ['{"a":0.5}', '{"a":0.5}']),
        ],
    }


def test_outputs_that_are_named_come_in_the_order_named_also_those_of_the_decision() -> None:
    names = ["outcome", "p", "decision_id", "confidence", "version"]
    request = read([tensor("x", "FP64", [1.0])], outputs=[{"name": name} for name in names])
    document = json.loads(write_response(MIXED, request, [decision()]).body)
    assert [each["name"] for each in document["outputs"]] == names
    assert [each["data"] for each in document["outputs"]] == [["answered"], [0.1], [IDS[0]], [0.9], [VERSION]]
    assert "id" not in document


def test_a_request_that_two_versions_decided_names_none() -> None:
    request = read([tensor("x", "FP64", [1.0, 2.0])], outputs=[{"name": "version"}])
    document = json.loads(write_response(MIXED, request, [decision(0), decision(1, version="other")]).body)
    assert "model_version" not in document
    assert document["outputs"][0]["data"] == [VERSION, "other"]


def test_a_whole_number_is_a_double_in_a_tensor_of_numbers() -> None:
    request = read([tensor("x", "FP64", [1.0])], outputs=[{"name": "p"}])
    assert b'"data":[1.0]' in write_response(MIXED, request, [decision(output={"p": 1})]).body


def told(request: InferRequest, *answers: bytes) -> tuple[int, str]:
    answer = write_response(MIXED, request, answers)
    document = json.loads(answer.body)
    valid(document, "inference_error_response")
    assert list(document) == ["error"]
    return answer.status, document["error"]


def refused(place: int, code: str, detail: str = "because") -> bytes:
    return decision(place, outcome="refused", output=None, reasons=[{"code": code, "detail": detail}])


def test_a_refused_row_makes_an_error_that_names_rows_reasons_and_decisions() -> None:
    request = read([tensor("x", "FP64", [1.0, 2.0, 3.0])])
    status, error = told(
        request, decision(0), refused(1, "contract_violation", "1 broken rule: x (maximum)"), decision(2)
    )
    assert status == 422
    assert error.splitlines() == [
        "1 of 3 rows refused",
        f"row 1, decision {IDS[1]}: contract_violation: 1 broken rule: x (maximum)",
        "the others are decided and recorded: 2 answered",
    ]


@pytest.mark.parametrize("code", sorted(REASONS))
def test_a_refused_row_has_the_status_of_its_reason(code: str) -> None:
    status, _ = told(read([tensor("x", "FP64", [1.0])]), refused(0, code))
    assert status == {name: status for name, (status, _) in REASONS.items()}[code]  # type: ignore[index]  # a code as text


def test_of_several_reasons_the_one_that_the_caller_can_mend_gives_the_status() -> None:
    request = read([tensor("x", "FP64", [1.0, 2.0])])
    assert told(request, refused(0, "model_unavailable"), refused(1, "contract_violation"))[0] == 422


def test_a_refusal_for_want_of_room_says_when_to_come_again() -> None:
    answer = write_response(MIXED, read([tensor("x", "FP64", [1.0])]), [refused(0, "overloaded")])
    assert (answer.status, ("retry-after", "1") in answer.headers) == (429, True)


def test_an_error_names_the_first_ten_rows_and_counts_the_rest() -> None:
    request = read([tensor("x", "FP64", [1.0] * 15)])
    _, error = told(request, *(refused(place, "model_error") for place in range(15)))
    lines = error.splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("15 of 15 rows refused", 12, "and 5 more")


def test_a_row_left_to_a_person_cannot_be_carried() -> None:
    waits = decision(
        0, outcome="review", output=None, reasons=[{"code": "low_confidence", "detail": "0.5 is below 0.8"}]
    )
    status, error = told(read([tensor("x", "FP64", [1.0])]), waits)
    assert status == 409
    assert f"row 0, decision {IDS[0]}: a person decides it: low_confidence: 0.5 is below 0.8" in error


def test_what_a_model_proposed_for_a_review_is_not_given_as_an_answer() -> None:
    assert told(read([tensor("x", "FP64", [1.0])]), decision(0, outcome="review"))[0] == 409


def test_a_review_is_carried_where_only_its_decision_is_asked_for() -> None:
    request = read([tensor("x", "FP64", [1.0])], outputs=[{"name": "outcome"}, {"name": "decision_id"}])
    document = json.loads(write_response(MIXED, request, [decision(0, outcome="review", output=None)]).body)
    assert [each["data"] for each in document["outputs"]] == [["review"], [IDS[0]]]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"p": 0.1, "late": None}, "late is null"),
        ({"p": 0.1}, "late is null"),
        ({"p": 0.1, "late": True, "label": "a", "count": 2**63, "parts": {}}, "count is not within INT64"),
        ({"p": 10**400, "late": True, "label": "a", "count": 1, "parts": {}}, "p is not within FP64"),
    ],
)
def test_an_output_that_no_tensor_holds_cannot_be_carried(output: dict[str, Any], said: str) -> None:
    status, error = told(read([tensor("x", "FP64", [1.0])]), decision(0, output=output))
    assert status == 409
    assert said in error


# The client of Triton Inference Server


def triton_input(name: str, datatype: str, data: list[Any], *, binary: bool) -> InferInput:
    array: np.ndarray[Any, Any] = np.array(
        data, {"FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_}[datatype]
    )
    made = InferInput(name, [len(data)], datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_tritonclient_writes_what_is_read_and_reads_what_is_written(binary: bool, named: bool) -> None:
    inputs = [
        triton_input("x", "FP64", [1.5, -0.25], binary=binary),
        triton_input("n", "INT64", [1, 2**62], binary=binary),
        triton_input("ok", "BOOL", [True, False], binary=binary),
        triton_input("text", "BYTES", ["é", ""], binary=binary),
    ]
    names = ["p", "late", "label", "count", "parts"]
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in names] if named else None
    body, length = InferenceServerClient.generate_request_body(inputs, outputs=outputs, request_id="7")
    headers = {} if length is None else {"inference-header-content-length": str(length)}
    request = read_request(MIXED, headers, body)
    assert records(request) == [
        {"x": 1.5, "n": 1, "ok": True, "text": "é"},
        {"x": -0.25, "n": 2**62, "ok": False, "text": ""},
    ]
    answer = write_response(MIXED, request, [decision(0), decision(1)])
    assert answer.status == 200
    head = dict(answer.headers).get("inference-header-content-length")
    assert (head is not None) == (binary or not named)  # unnamed outputs are asked for as binary data
    result = InferenceServerClient.parse_response_body(answer.body, header_length=None if head is None else int(head))
    assert result.get_response()["id"] == "7"
    assert result.as_numpy("p").tolist() == [0.1, 0.1]
    assert result.as_numpy("late").tolist() == [False, False]
    assert result.as_numpy("count").tolist() == [3, 3]
    labels = result.as_numpy("label").tolist()
    assert [each.decode() if isinstance(each, bytes) else each for each in labels] == ["é", "é"]
