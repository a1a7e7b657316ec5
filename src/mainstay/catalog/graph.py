"""What an ONNX graph takes and gives, found out from the graph and from running the sample rows through it.

Nothing is guessed: a graph that cannot be understood is refused, saying what was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import onnxruntime

from mainstay.errors import Failed, Misuse
from mainstay.runtime.tensors import build_feeder
from mainstay.runtime.types import ModelInput, ModelOutput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.runtime.types import Feature, Row

    Tensors = Mapping[str, np.ndarray[Any, Any]]

CLASSES_PROPERTY = "classes"  # a metadata property of the ONNX file: a JSON list of the class names
NEIGHBOUR_ROWS = 16  # how many rows are also run alone
MAX_NEIGHBOUR_DIFFERENCE = 1e-5

_CHUNK_ROWS = 4_096
_KINDS: dict[str, Literal["float", "double", "int64", "string", "bool"]] = {
    "tensor(float)": "float",
    "tensor(double)": "double",
    "tensor(int64)": "int64",
    "tensor(string)": "string",
    "tensor(bool)": "bool",
}
_TAKES = {
    "float": ("number", "integer", "boolean"),
    "double": ("number", "integer", "boolean"),
    "int64": ("integer", "boolean"),
    "string": ("string",),
    "bool": ("boolean",),
}
_EXTERNAL_DATA = b"\x0a\x08location\x12"  # a StringStringEntryProto with the key that names a weights file


class Graph:
    """An ONNX graph, loaded on one CPU thread."""

    def __init__(self, artifact: bytes) -> None:
        """Load it. Raises Failed when ONNX Runtime cannot, Misuse when its weights stand in another file."""
        if _EXTERNAL_DATA in artifact:
            raise Misuse(
                "the ONNX file keeps weights in another file, which a version does not hold",
                hint="Save it as one file: onnx.save_model(model, path, save_as_external_data=False)",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised, and said once
        try:
            self._session: Any = onnxruntime.InferenceSession(
                artifact, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )  # falling back is to load the same again, and to print so
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no other base
            raise Failed(f"ONNX Runtime cannot load the model: {_first_line(error)}") from None

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self._session.get_outputs())

    def declared_inputs(self) -> list[tuple[str, str, list[Any]]]:
        """The name, the type and the shape of every input, as ONNX Runtime says them."""
        return [(each.name, each.type, list(each.shape)) for each in self._session.get_inputs()]

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def inputs(self, features: Sequence[Feature]) -> tuple[ModelInput, ...]:
        """How `features` fill the graph: one matrix of all of them, or one input by the name of each.

        Raises Misuse saying what was found when neither fits.
        """
        found = self._session.get_inputs()
        shown = ", ".join(f"{each.name}: {each.type}{each.shape}" for each in found)
        for each in found:
            if each.type not in _KINDS or len(each.shape) != 2 or isinstance(each.shape[0], int):
                raise Misuse(
                    f"the ONNX graph takes ({shown}): expected every input of shape [N, columns] with a free first "
                    f"dimension, of type {', '.join(_KINDS)}"
                )
        by_name = {feature.name: feature for feature in features}
        if (len(found) == 1 and found[0].shape[1] in (len(features), None)) or _is_named(found[0].shape[1], found):
            only = ModelInput(name=found[0].name, kind=_KINDS[found[0].type], fields=tuple(by_name))
            inputs: tuple[ModelInput, ...] = (only,)
        else:
            _check_names({each.name: each.shape[1] for each in found}, by_name, shown)
            inputs = tuple(ModelInput(name=each.name, kind=_KINDS[each.type], fields=(each.name,)) for each in found)
        for each in inputs:
            for name in each.fields:
                _check_kind(each, by_name[name])
        return inputs

    def run(
        self, inputs: Sequence[ModelInput], fields: Sequence[str], names: Sequence[str], rows: Sequence[Row]
    ) -> dict[str, Any]:
        """The outputs `names` of the graph for all rows, joined along the first dimension.

        Raises Failed when the graph fails, saying among which rows (counted from 1).
        """
        feed = build_feeder(inputs, fields)
        parts: list[list[Any]] = []
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows[start : start + _CHUNK_ROWS]
            try:
                with np.errstate(over="ignore"):
                    parts.append(self._session.run(names, feed(chunk)))
            except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions share no other base
                place = f"sample rows {start + 1} to {start + len(chunk)}"
                raise Failed(f"the ONNX graph fails on {place}: {_first_line(error)}") from None
        return {name: _join(name, [part[place] for part in parts]) for place, name in enumerate(names)}

    def check_rows_are_independent(
        self, inputs: Sequence[ModelInput], fields: Sequence[str], rows: Sequence[Row], tensors: Tensors
    ) -> None:
        """Raises Failed when a row alone gives something else than among others: decisions share a run of the model."""
        for place, row in enumerate(rows[:NEIGHBOUR_ROWS]):
            for name, alone in self.run(inputs, fields, list(tensors), [row]).items():
                among = tensors[name][place : place + 1]
                if alone.shape != among.shape or not _same(alone, among):
                    raise Failed(f"output {name!r} of sample row {place + 1} depends on the rows it is run with")


def understand_outputs(tensors: Tensors, rows: int) -> tuple[ModelOutput, ...]:
    """The role of every output, from what the sample rows gave.

    (N, C >= 2) floats between 0 and 1 are probabilities; (N,) or (N, 1) floats a value; (N,) or (N, 1) text or
    integers a label. Raises Misuse for anything else.
    """
    outputs = tuple(ModelOutput(name=name, role=_role(name, tensor, rows)) for name, tensor in tensors.items())
    roles = [each.role for each in outputs]
    if len(set(roles)) < len(roles):
        shown = ", ".join(f"{each.name} is a {each.role}" for each in outputs)
        raise Misuse(f"the ONNX graph has several outputs of one role: expected at most one of each, found {shown}")
    return outputs


def understand_classes(
    outputs: Sequence[ModelOutput], tensors: Tensors, metadata: Mapping[str, str]
) -> tuple[str | int | bool, ...]:
    """The classes in the order of the probabilities; empty when there are none.

    They are the metadata property `classes` of the ONNX file where it has one; else what the label output says for
    the most probable place, over the sample rows; else 0, 1, 2 and so on. Raises Misuse when these contradict.
    """
    names = {each.role: each.name for each in outputs}
    if "probabilities" not in names:
        return ()
    count = tensors[names["probabilities"]].shape[1]
    if CLASSES_PROPERTY in metadata:
        return _declared_classes(metadata[CLASSES_PROPERTY], count)
    if "label" not in names:
        return tuple(range(count))
    labels = tensors[names["label"]].reshape(-1).tolist()
    seen: dict[int, str | int] = {}
    for place, label in zip(tensors[names["probabilities"]].argmax(axis=1).tolist(), labels, strict=True):
        if seen.setdefault(place, label) != label:
            raise Misuse(
                f"the label is {label!r} where class {place} is most probable, and {seen[place]!r} in another row"
            )
    if all(place == label for place, label in seen.items()):
        return tuple(range(count))
    unseen = sorted(set(range(count)) - seen.keys())
    if unseen:
        raise Misuse(
            f"no sample row is of class {', '.join(map(str, unseen))}, so its name is not known",
            hint=f"Add such a row, or the metadata property {CLASSES_PROPERTY!r} to the file: a JSON list of names.",
        )
    return tuple(seen[place] for place in range(count))


def _is_named(width: Any, found: Sequence[Any]) -> bool:
    """Whether the one input has a free width, which ONNX may also write as a name."""
    return len(found) == 1 and isinstance(width, str)


def _check_names(widths: Mapping[str, Any], features: Mapping[str, Feature], shown: str) -> None:
    """Raises Misuse when inputs by name are not exactly the features, one column each."""
    if widths.keys() == features.keys() and all(width == 1 or not isinstance(width, int) for width in widths.values()):
        return
    raise Misuse(
        f"the ONNX graph takes ({shown}): expected one input [N, {len(features)}], or one input [N, 1] for each of "
        f"{', '.join(features)}",
        hint="List the fields that the model takes, in its order, under `model.features` in capability.yaml.",
    )


def _check_kind(model_input: ModelInput, feature: Feature) -> None:
    if feature.kind not in _TAKES[model_input.kind]:
        raise Misuse(
            f"input {model_input.name!r} of the ONNX graph is {model_input.kind}: "
            f"expected a field of type {' or '.join(_TAKES[model_input.kind])}, found {feature.name!r}, {feature.kind}"
        )
    if feature.nullable and model_input.kind in ("int64", "bool"):
        raise Misuse(
            f"input {model_input.name!r} of the ONNX graph is {model_input.kind}, which has no missing value: "
            f"expected a required field, found {feature.name!r}, which may be missing"
        )


def _role(name: str, tensor: np.ndarray[Any, Any], rows: int) -> Literal["probabilities", "label", "value"]:
    found = f"{tensor.dtype}{list(tensor.shape)}"
    is_column = tensor.shape in ((rows,), (rows, 1))
    if tensor.dtype.kind == "f":
        if is_column:
            return "value"
        if tensor.ndim == 2 and tensor.shape[0] == rows:
            if not ((tensor >= -1e-6) & (tensor <= 1 + 1e-6)).all():
                raise Misuse(
                    f"output {name!r} has {tensor.shape[1]} columns that are not all between 0 and 1",
                    hint="Class probabilities are expected; raw scores need a softmax or sigmoid in the graph.",
                )
            return "probabilities"
    elif is_column and (tensor.dtype.kind in "OU" or tensor.dtype == np.int64):
        return "label"
    raise Misuse(
        f"output {name!r} is {found} for {rows} rows: expected float[N, classes] (probabilities), float[N] or "
        "float[N, 1] (a value), or int64[N] or text[N] (a label)"
    )


def _join(name: str, parts: list[Any]) -> np.ndarray[Any, Any]:
    """The chunks of one output as one array. Raises Misuse when it is no tensor with a row for each row."""
    for part in parts:
        if not isinstance(part, np.ndarray) or part.ndim == 0 or part.shape[1:] != parts[0].shape[1:]:
            raise Misuse(
                f"output {name!r} is no tensor with a row per input row",
                hint="A graph converted by skl2onnx needs options={'zipmap': False}.",
            )
    return np.concatenate(parts)


def _same(alone: np.ndarray[Any, Any], among: np.ndarray[Any, Any]) -> bool:
    if alone.dtype.kind != "f":
        return bool((alone == among).all())
    return bool(np.allclose(alone, among, rtol=MAX_NEIGHBOUR_DIFFERENCE, atol=MAX_NEIGHBOUR_DIFFERENCE, equal_nan=True))


def _declared_classes(text: str, count: int) -> tuple[str | int | bool, ...]:
    try:
        classes = msgspec.json.decode(text, type=tuple[str | int | bool, ...])
    except msgspec.DecodeError as error:
        raise Misuse(
            f"metadata property {CLASSES_PROPERTY!r} of the ONNX file: expected a JSON list: {error}"
        ) from None
    if len(classes) != count:
        raise Misuse(f"metadata property {CLASSES_PROPERTY!r}: expected {count} classes, found {len(classes)}")
    return classes


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
