"""Registering: from a capability folder to an immutable version that has been seen to work on the sample.

    1  load and validate the folder
    2  read the samples; each row must keep the input contract
    3  get an ONNX graph: as it is, or converted
    4  run every sample row; every output must be finite and keep the output contract
    5  a conversion must agree with the original within the tolerance, on every row
    6  store it under the digest of its manifest

Every file is read once; what is checked, hashed and stored is that one reading.
"""

from __future__ import annotations

import platform
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mainstay.capability.load import load_capability
from mainstay.capability.types import FILE_NAME
from mainstay.catalog import conversion
from mainstay.catalog.agreement import check_agreement
from mainstay.catalog.conversion import PICKLE_SUFFIXES, SKOPS_SUFFIX, Limits, Reply, Request
from mainstay.catalog.graph import Graph, understand_classes, understand_outputs
from mainstay.catalog.samples import MAX_SAMPLE_BYTES, check_outputs, features_of, read_samples
from mainstay.catalog.types import VERSION_FORMAT, Conversion, Digest, Manifest, StoredFile
from mainstay.catalog.versions import (
    FOLDER,
    MAX_FILE_BYTES,
    StoredVersion,
    load_manifest,
    open_version,
    read_bounded,
    store_version,
    stored_digests,
    stored_file,
)
from mainstay.errors import Damaged, Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mainstay.capability.load import Declared
    from mainstay.capability.types import ModelSource
    from mainstay.catalog.conversion import Feature
    from mainstay.runtime.tensors import Row
    from mainstay.runtime.types import ModelInput, ModelOutput

CONVERTED = "artifact.onnx"
MAX_CODE_FILES = 1_000
MAX_CODE_BYTES = 64 << 20
MAX_TRUST_CHARACTERS = 10_000

_RUNTIME_DISTRIBUTIONS = ("onnxruntime",)
_CONVERSION_DISTRIBUTIONS = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")
_NEEDED_DISTRIBUTIONS = ("joblib", "pandas", "skops")  # they leave no mark on the artifact


@dataclass(frozen=True, slots=True)
class Registered:
    """A version, and whether this call made it. `notes` are what its owner should know; only a new version has any."""

    version: Digest
    manifest: Manifest
    path: Path
    created: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sources:
    """Everything that was brought: the files of the version but a converted artifact, and how they shape it."""

    declared: Declared
    contents: dict[str, bytes]  # by path inside the version
    environment: dict[str, str]
    pickle_trusted: str | None

    def stored(self, path: str) -> StoredFile:
        inside = _inside(path)
        return stored_file(inside, self.contents[inside])

    def content(self, path: str) -> bytes:
        return self.contents[_inside(path)]


@dataclass(frozen=True, slots=True)
class _Model:
    """An ONNX graph that was seen to work, and what it takes and gives."""

    artifact: bytes
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    classes: tuple[str | int | bool, ...]
    tensors: Mapping[str, Any]
    conversion: Conversion | None
    notes: tuple[str, ...] = ()


def register(
    folder: Path,
    versions: Path,
    *,
    trust_pickle: str | None = None,
    progress: Callable[[str], None] | None = None,
    limits: Limits | None = None,
) -> Registered:
    """Register the capability folder in the directory `versions`; the same content always makes the same version.

    `trust_pickle` is why a model that is a pickle may be opened. `progress` is told each step as it begins. `limits`
    hold the conversion.

    Raises InvalidDocument when the folder or a sample breaks its rules, with every problem; Misuse when the model
    cannot be taken as it is; Failed when it does not run or its conversion does not agree. Nothing is stored then.
    """
    tell = progress or (lambda _: None)
    tell("reading the folder")
    sources = _read_sources(folder, trust_pickle)
    existing = _find_existing(versions, sources)
    if existing is not None:
        tell("nothing to do: this content is registered")
        return Registered(existing.digest, existing.manifest, existing.path, created=False)
    declared = sources.declared
    tell("checking the samples")
    samples_path = declared.capability.samples
    rows = read_samples(sources.content(samples_path), str(folder / samples_path), declared.input)
    model = _get_model(sources, rows, limits or Limits(), tell)
    if model.conversion is not None:
        tell(f"the conversion agrees: largest difference {model.conversion.max_difference:g} on {len(rows):,} rows")
    tell("checking the outputs")
    check_outputs(declared, model.outputs, model.classes, model.tensors, len(rows))
    tell("storing the version")
    stored, created = _store(versions, sources, model)
    return Registered(stored.digest, stored.manifest, stored.path, created, model.notes if created else ())


def _inside(path: str) -> str:
    """Where a file of the folder stands inside the version, under one spelling of its path."""
    return f"{FOLDER}/{PurePosixPath(path)}"


# 1 and the reading of everything


def _read_sources(folder: Path, trust_pickle: str | None) -> _Sources:
    """The folder, read once. What is validated is what was read, not what the files have become since."""
    capability = load_capability(folder).capability
    model = capability.model
    pickle_trusted = _check_model_file(model, trust_pickle)
    limits = {FILE_NAME: MAX_SAMPLE_BYTES, capability.contract: MAX_SAMPLE_BYTES, capability.samples: MAX_SAMPLE_BYTES}
    contents: dict[str, bytes] = {}
    for path in (FILE_NAME, capability.contract, capability.samples, model.file):
        contents[_inside(path)] = _read(folder, path, limits.get(path, MAX_FILE_BYTES))
    contents |= _read_code(folder)
    with tempfile.TemporaryDirectory(prefix="mainstay-register-") as staging:
        for path, content in contents.items():
            place = Path(staging, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        declared = load_capability(Path(staging, FOLDER))
    if declared.capability != capability:
        raise Failed(f"{folder} changed while it was read", hint="Register it again when nobody is writing there.")
    return _Sources(declared, contents, _environment(model.kind), pickle_trusted)


def _read(folder: Path, path: str, limit_bytes: int) -> bytes:
    """A file of the folder. A link may lead within the folder; what it leads to is stored in its place."""
    try:
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise Misuse(f"{folder / path}: expected a file inside the folder, found a link that leaves it")
        return read_bounded(folder / path, limit_bytes)
    except OSError as error:
        raise Misuse(f"{folder / path}: expected a file, found: {error.strerror}") from None


def _read_code(folder: Path) -> dict[str, bytes]:
    """Every Python file of the folder, by its path inside the version; hidden directories and caches are left out."""
    found: dict[str, bytes] = {}
    total = 0
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") or part == "__pycache__" for part in inside.parts) or not path.is_file():
            continue
        content = _read(folder, inside.as_posix(), MAX_CODE_BYTES)
        total += len(content)
        if len(found) >= MAX_CODE_FILES or total > MAX_CODE_BYTES:
            raise Misuse(
                f"{folder} holds more Python than a capability's code: expected at most {MAX_CODE_FILES:,} files and "
                f"{MAX_CODE_BYTES:,} bytes, found more",
                hint="Keep environments and packages outside of the folder, or in a hidden directory.",
            )
        found[_inside(inside.as_posix())] = content
    return found


def _check_model_file(model: ModelSource, trust_pickle: str | None) -> str | None:
    """Why a pickle is trusted, None when the model is no pickle. Raises Misuse when it may not be opened."""
    suffix = PurePosixPath(model.file).suffix.lower()
    if model.kind == "onnx" or suffix == SKOPS_SUFFIX:
        return None
    if suffix not in PICKLE_SUFFIXES:
        expected = ", ".join((SKOPS_SUFFIX, *PICKLE_SUFFIXES))
        raise Misuse(f"model.file is {model.file}: expected a scikit-learn model in a file ending in one of {expected}")
    reason = (trust_pickle or "").strip()
    if not 1 <= len(reason) <= MAX_TRUST_CHARACTERS:
        raise Misuse(
            f"{model.file} is a pickle: whoever wrote it can run any code in whoever opens it",
            hint="Save it with skops instead: skops.io.dump(model, 'model.skops'). If you know who made this file and "
            "trust them, say why: --trust-pickle REASON. The reason is kept in the version.",
        )
    return reason


def _environment(kind: Literal["onnx", "sklearn"]) -> dict[str, str]:
    """The versions that shape the artifact. Raises Misuse when what a conversion needs is not installed."""
    named = _RUNTIME_DISTRIBUTIONS if kind == "onnx" else _CONVERSION_DISTRIBUTIONS
    needed = named if kind == "onnx" else (*named, *_NEEDED_DISTRIBUTIONS)
    versions = {}
    missing = []
    for name in needed:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        raise Misuse(
            f"converting a scikit-learn model needs {', '.join(missing)}, which is not installed",
            hint="Run: pip install 'mainstay-ai[sklearn]'",
        )
    return {"python": ".".join(platform.python_version_tuple()[:2])} | {name: versions[name] for name in named}


def _find_existing(versions: Path, sources: _Sources) -> StoredVersion | None:
    """The version that these very sources made in this environment. Raises Damaged when it is not whole."""
    for digest in reversed(stored_digests(versions)):
        try:
            manifest = load_manifest(versions, digest)
        except Damaged:
            continue  # another version's damage is for whoever opens that version
        if _describe(sources) == _describe_sources_of(manifest):
            return open_version(versions, digest)
    return None


def _describe(sources: _Sources) -> tuple[Any, ...]:
    """What makes a version, but for the artifact, which follows from it."""
    capability = sources.declared.capability
    return (
        capability.name,
        sources.stored(FILE_NAME),
        sources.stored(capability.contract),
        sources.stored(capability.samples),
        sources.stored(capability.model.file),
        _code(sources),
        sources.environment,
        sources.pickle_trusted,
    )


def _describe_sources_of(manifest: Manifest) -> tuple[Any, ...]:
    return (
        manifest.capability,
        manifest.declaration,
        manifest.contract,
        manifest.samples,
        manifest.source,
        manifest.code,
        manifest.environment,
        manifest.pickle_trusted,
    )


def _code(sources: _Sources) -> tuple[StoredFile, ...]:
    paths = sorted(path for path in sources.contents if path.endswith(".py"))
    return tuple(stored_file(path, sources.contents[path]) for path in paths)


# 3 to 5


def _get_model(sources: _Sources, rows: Sequence[Row], limits: Limits, tell: Callable[[str], None]) -> _Model:
    """The graph, run on every row, and found to agree with what it was converted from."""
    declared = sources.declared
    features = features_of(declared)
    if declared.capability.model.kind == "onnx":
        return _understand(sources.content(declared.capability.model.file), declared, features, rows)
    tell("converting the model to ONNX")
    request = _request(declared, features, rows, limits)
    return _convert(request, sources.content(declared.capability.model.file), declared, rows, tell)


def _understand(artifact: bytes, declared: Declared, features: Sequence[Feature], rows: Sequence[Row]) -> _Model:
    """Kind onnx: what the graph takes and gives is found out."""
    graph = Graph(artifact)
    inputs = graph.inputs(features)
    tensors = _run(graph, inputs, graph.output_names, declared, rows)
    outputs = understand_outputs(tensors, len(rows))
    classes = understand_classes(outputs, tensors, graph.metadata)
    return _Model(artifact, inputs, outputs, classes, tensors, None)


def _convert(
    request: Request, source: bytes, declared: Declared, rows: Sequence[Row], tell: Callable[[str], None]
) -> _Model:
    """Kind sklearn: convert, run, compare. Integers go into float tensors first, as most models take them; when that
    does not agree, which is how encoders of integer categories may fail, they are tried as integers.
    """
    try:
        return _convert_once(request, source, declared, rows)
    except _Disagrees as disagrees:
        if not disagrees.has_integer_choice:
            raise disagrees.error from None
        tell("converting again, with integers as integers")
        try:
            return _convert_once(msgspec.structs.replace(request, integers="int64"), source, declared, rows)
        except (_Disagrees, Misuse, Failed):
            raise disagrees.error from None  # the first attempt says what is wrong with the model as it is


class _Disagrees(Exception):
    def __init__(self, error: Failed, has_integer_choice: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.has_integer_choice = has_integer_choice


def _convert_once(request: Request, source: bytes, declared: Declared, rows: Sequence[Row]) -> _Model:
    reply, artifact = conversion.convert(request, source)
    names = [each.name for each in reply.outputs]
    tensors = _run(Graph(artifact), reply.inputs, names, declared, rows)
    tolerance = declared.capability.model.tolerance
    try:
        compared = check_agreement(reply, tensors, len(rows), tolerance)
    except Failed as error:
        raise _Disagrees(error, reply.has_integer_choice and request.integers == "float") from None
    notes = (*reply.notes, *_never_missing(request, reply))
    return _Model(artifact, reply.inputs, reply.outputs, reply.classes, tensors, compared, notes)


def _run(
    graph: Graph, inputs: Sequence[ModelInput], names: Sequence[str], declared: Declared, rows: Sequence[Row]
) -> dict[str, Any]:
    fields = declared.input.fields
    tensors = graph.run(inputs, fields, names, rows)
    graph.check_rows_are_independent(inputs, fields, rows, tensors)
    return tensors


def _request(declared: Declared, features: tuple[Feature, ...], rows: Sequence[Row], limits: Limits) -> Request:
    model = declared.capability.model
    places = {name: place for place, name in enumerate(declared.input.fields)}
    wanted = [places[feature.name] for feature in features]
    return Request(
        source="model" + PurePosixPath(model.file).suffix.lower(),
        features=features,
        features_declared=bool(model.features),
        rows=[tuple(row[place] for place in wanted) for row in rows],
        trusted_types=model.trusted_types,
        integers="float",
        limits=limits,
    )


def _never_missing(request: Request, reply: Reply) -> Iterable[str]:
    """A note on fields that may be missing and never are in the sample: there the conversion was not compared."""
    used = {field for each in reply.inputs for field in each.fields}
    unseen = [
        feature.name
        for place, feature in enumerate(request.features)
        if feature.nullable and feature.name in used and all(row[place] is not None for row in request.rows)
    ]
    if unseen:
        yield f"no sample row lacks {', '.join(unseen)}: how the model takes a gap there was not compared"


# 6


def _store(versions: Path, sources: _Sources, model: _Model) -> tuple[StoredVersion, bool]:
    capability = sources.declared.capability
    source = sources.stored(capability.model.file)
    contents = dict(sources.contents)
    artifact = source
    if model.conversion is not None:
        artifact = stored_file(CONVERTED, model.artifact)
        contents[CONVERTED] = model.artifact
    manifest = Manifest(
        format=VERSION_FORMAT,
        capability=capability.name,
        declaration=sources.stored(FILE_NAME),
        contract=sources.stored(capability.contract),
        samples=sources.stored(capability.samples),
        artifact=artifact,
        source=source,
        code=_code(sources),
        inputs=model.inputs,
        outputs=model.outputs,
        classes=model.classes,
        environment=sources.environment,
        conversion=model.conversion,
        pickle_trusted=sources.pickle_trusted,
    )
    return store_version(versions, manifest, contents)
