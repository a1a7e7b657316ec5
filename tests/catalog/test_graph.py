from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mainstay.catalog.graph import Graph, understand_classes, understand_outputs
from mainstay.errors import Failed, Misuse
from mainstay.runtime.types import Feature, ModelInput, ModelOutput

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = tuple(Feature(name, "number", nullable=True) for name in "abc")


def value(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any] | None = None) -> bytes:
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


def softmax(columns: int = 3, batch: Any = "N") -> bytes:
    """(N, columns) numbers to (N, 2) probabilities."""
    nodes = [helper.make_node("MatMul", ["X", "W"], ["S"]), helper.make_node("Softmax", ["S"], ["P"])]
    weights = np.arange(columns * 2, dtype=np.float32).reshape(columns, 2) - 2
    inputs = [value("X", TensorProto.FLOAT, [batch, columns])]
    return model(nodes, inputs, [value("P", TensorProto.FLOAT, [batch, 2])], {"W": weights})


def identity(kind: int, shape: list[Any]) -> bytes:
    return model([helper.make_node("Identity", ["a"], ["y"])], [value("a", kind, shape)], [value("y", kind, shape)])


def run(graph: Graph, features: tuple[Feature, ...], rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    fields = [each.name for each in features]
    return graph.run(graph.inputs(features), fields, graph.output_names, rows)


def test_one_matrix_takes_all_features_in_order() -> None:
    graph = Graph(softmax())
    assert graph.inputs(NUMBERS) == (ModelInput(name="X", kind="float", fields=("a", "b", "c")),)
    tensors = run(graph, NUMBERS, [(1.0, 2.0, 3.0), (0.0, 0.0, 0.0)])
    assert understand_outputs(tensors, 2) == (ModelOutput(name="P", role="probabilities"),)
    assert understand_classes(understand_outputs(tensors, 2), tensors, {}) == (0, 1)


def test_inputs_by_name_take_one_feature_each() -> None:
    features = (Feature("b", "string", nullable=True), Feature("a", "integer", nullable=False))
    nodes = [helper.make_node("Identity", ["a"], ["y"]), helper.make_node("Identity", ["b"], ["z"])]
    inputs = [value("a", TensorProto.INT64, ["N", 1]), value("b", TensorProto.STRING, ["N", 1])]
    outputs = [value("y", TensorProto.INT64, ["N", 1]), value("z", TensorProto.STRING, ["N", 1])]
    graph = Graph(model(nodes, inputs, outputs))
    assert {each.name: (each.kind, each.fields) for each in graph.inputs(features)} == {
        "a": ("int64", ("a",)),
        "b": ("string", ("b",)),
    }
    tensors = run(graph, features, [("x", 1), (None, 2)])
    assert tensors["z"].tolist() == [["x"], [""]]
    with pytest.raises(Misuse, match="y is a label, z is a label"):
        understand_outputs(tensors, 2)


def test_more_rows_than_one_run_takes_are_joined() -> None:
    tensors = run(Graph(softmax()), NUMBERS, [(float(n), 0.0, None) for n in range(10_000)])
    assert tensors["P"].shape == (10_000, 2)


@pytest.mark.parametrize("features", [NUMBERS[:2], (*NUMBERS, Feature("d", "number", nullable=True))])
def test_another_number_of_features_is_refused(features: tuple[Feature, ...]) -> None:
    with pytest.raises(Misuse, match=r"takes \(X: tensor\(float\)\['N', 3\]\)") as caught:
        Graph(softmax()).inputs(features)
    assert "model.features" in str(caught.value)


@pytest.mark.parametrize(
    ("artifact", "feature", "found"),
    [
        (
            identity(TensorProto.FLOAT, ["N", 1]),
            Feature("a", "string", nullable=False),
            "expected a field of type number",
        ),
        (
            identity(TensorProto.INT64, ["N", 1]),
            Feature("a", "number", nullable=False),
            "expected a field of type integer",
        ),
        (identity(TensorProto.INT64, ["N", 1]), Feature("a", "integer", nullable=True), "no missing value"),
        (
            identity(TensorProto.BOOL, ["N", 1]),
            Feature("a", "integer", nullable=False),
            "expected a field of type bool",
        ),
        (
            identity(TensorProto.STRING, ["N", 1]),
            Feature("a", "boolean", nullable=False),
            "expected a field of type string",
        ),
        (identity(TensorProto.INT32, ["N", 1]), Feature("a", "integer", nullable=False), "int32"),
        (identity(TensorProto.FLOAT, ["N"]), Feature("a", "number", nullable=False), r"shape \[N, columns\]"),
        (identity(TensorProto.FLOAT, [1, 1]), Feature("a", "number", nullable=False), "free first dimension"),
    ],
)
def test_an_input_that_does_not_fit_its_field_is_refused(artifact: bytes, feature: Feature, found: str) -> None:
    with pytest.raises(Misuse, match=found):
        Graph(artifact).inputs((feature,))


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(
        onnx.load_from_string(softmax()), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    with pytest.raises(Misuse, match="weights in another file"):
        Graph(path.read_bytes())


@pytest.mark.parametrize("content", [b"", b"garbage", softmax()[:-40]], ids=["empty", "garbage", "cut short"])
def test_what_is_no_onnx_file_is_refused(content: bytes) -> None:
    with pytest.raises(Failed, match="cannot load the model"):
        Graph(content).inputs(NUMBERS)


def test_a_graph_that_fails_says_among_which_rows() -> None:
    nodes = [helper.make_node("Reshape", ["X", "shape"], ["y"])]
    inputs = [value("X", TensorProto.FLOAT, ["N", 3])]
    artifact = model(nodes, inputs, [value("y", TensorProto.FLOAT, [7, 3])], {"shape": np.array([7, 3])})
    with pytest.raises(Failed, match="fails on sample rows 1 to 2"):
        run(Graph(artifact), NUMBERS, [(0.0, 0.0, 0.0)] * 2)


def test_a_graph_whose_rows_depend_on_each_other_is_refused() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["X", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["X", "mean"], ["D"]),
        helper.make_node("ReduceMean", ["D", "one"], ["y"], keepdims=1),
    ]
    inputs = [value("X", TensorProto.FLOAT, ["N", 3])]
    weights = {"axes": np.array([0]), "one": np.array([1])}
    graph = Graph(model(nodes, inputs, [value("y", TensorProto.FLOAT, ["N", 1])], weights))
    rows = [(0.0, 0.0, 0.0), (3.0, 3.0, 3.0)]
    tensors = run(graph, NUMBERS, rows)
    with pytest.raises(Failed, match="depends on the rows it is run with"):
        graph.check_rows_are_independent(graph.inputs(NUMBERS), list("abc"), rows, tensors)


@pytest.mark.parametrize(
    ("tensor", "role"),
    [
        (np.zeros(4, np.float32), "value"),
        (np.zeros((4, 1), np.float64), "value"),
        (np.full((4, 3), 0.5, np.float32), "probabilities"),
        (np.zeros(4, np.int64), "label"),
        (np.array([["x"]] * 4, dtype=object), "label"),
    ],
)
def test_an_output_is_understood_by_its_type_and_shape(tensor: Any, role: str) -> None:
    assert [each.role for each in understand_outputs({"y": tensor}, 4)] == [role]


@pytest.mark.parametrize(
    "tensor",
    [
        np.zeros((4, 2, 2), np.float32),
        np.zeros(3, np.float32),
        np.zeros((4, 2), np.int64),
        np.zeros(4, np.int32),
        np.zeros(4, np.bool_),
        np.full((4, 2), 1.5, np.float32),
        np.full((4, 2), math.nan, np.float32),
    ],
    ids=lambda tensor: f"{tensor.dtype}{tensor.shape}",
)
def test_an_output_that_is_not_understood_is_refused(tensor: Any) -> None:
    with pytest.raises(Misuse, match="output 'y'"):
        understand_outputs({"y": tensor}, 4)


OUTPUTS = (ModelOutput(name="p", role="probabilities"), ModelOutput(name="l", role="label"))
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)


def classes(labels: list[Any], metadata: dict[str, str] | None = None, dtype: Any = object) -> tuple[Any, ...]:
    return understand_classes(OUTPUTS, {"p": PROBABILITIES, "l": np.array(labels, dtype)}, metadata or {})


def test_class_names_are_what_the_label_says_of_the_most_probable_place() -> None:
    assert classes(["no", "yes", "no"]) == ("no", "yes")
    assert classes([0, 1, 0], dtype=np.int64) == (0, 1)
    assert classes([-1, 1, -1], dtype=np.int64) == (-1, 1)


def test_class_names_may_stand_in_the_file() -> None:
    assert classes(["no", "no", "no"], {"classes": '["no", "yes"]'}) == ("no", "yes")
    assert classes(["no", "yes", "no"], {"classes": "[false, true]"}) == (False, True)
    for wrong in ('["no"]', "no, yes", '{"no": 1}', "[1.5, 2]"):
        with pytest.raises(Misuse, match="metadata property 'classes'"):
            classes(["no", "yes", "no"], {"classes": wrong})


def test_labels_that_contradict_the_probabilities_are_refused() -> None:
    with pytest.raises(Misuse, match="the label is 'maybe'"):
        classes(["no", "yes", "maybe"])


def test_a_class_without_a_sample_row_has_no_name() -> None:
    wide = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]], np.float32)
    tensors: dict[str, Any] = {"p": wide, "l": np.array(["no", "yes"], object)}
    with pytest.raises(Misuse, match="no sample row is of class 2"):
        understand_classes(OUTPUTS, tensors, {})
    assert understand_classes(OUTPUTS[1:], tensors, {}) == ()
