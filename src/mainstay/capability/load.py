"""Reading a capability folder: the declaration, the files it names, its contract, and whether all of them agree.

Every problem of the declaration and of the contract is reported at once. Nothing outside the folder is read: a link
that leaves it is a problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from mainstay.capability import checks
from mainstay.capability.checks import one_of
from mainstay.capability.keeping_checks import check_keeping, check_keeping_objects
from mainstay.capability.ladder import check_conditions, check_outputs, check_rungs
from mainstay.capability.source_checks import check_source_objects, check_sources
from mainstay.capability.types import CONTRACT_NAME, FILE_NAME, Capability
from mainstay.contract.load import ReadContract, read_contract
from mainstay.contract.validator import ObjectValidator, compile_object
from mainstay.documents import Document, Place, Problems, describe, read_bytes, read_document
from mainstay.errors import InvalidDocument, Misuse
from mainstay.structs import read_struct

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.contract.types import Contract, SchemaObject

MAX_DECLARATION_BYTES: Final = 1 << 20
MAX_AUTHORITY_BYTES: Final = 256 << 10
MAX_SAMPLES_BYTES: Final = 64 << 20  # also of the reference rows
MAX_CODE_BYTES: Final = 64 << 20
MAX_MODEL_BYTES: Final = 2 << 30  # what a protobuf message, and so an ONNX file, can hold

_FIRST_POLICIES: Final = """\
    @id("answers-by-itself") permit (principal is Mainstay::Capability, action, resource);
    @id("keys-and-people") permit (principal, action, resource) unless { principal is Mainstay::Capability };
"""  # answers need no person; keys act within their scopes, and people at the command line


@dataclass(frozen=True)
class Declared:
    """A capability folder that was read and agrees with itself."""

    folder: Path
    capability: Capability
    contract: Contract
    authority: bytes  # the text of its policies, as it was read; what it says is for `authority` to judge
    input: ObjectValidator
    output: ObjectValidator
    outcome: ObjectValidator | None  # None: what became true later is not described


def load_capability(folder: Path) -> Declared:
    """Read a capability folder.

    Raises Misuse when there is no such folder, and InvalidDocument with every problem of `capability.yaml` and of the
    contract.
    """
    if not folder.is_dir():
        raise Misuse(f"{folder}: expected a capability folder, found {'a file' if folder.exists() else 'nothing'}")
    problems = Problems()
    place, capability = _read_declaration(folder, problems)
    contract = _read_contract_of(folder, place, capability, problems)
    declared = None
    if place is not None and capability is not None:
        _check_files(folder, place, capability)
        authority = _read_authority(folder, place, capability, problems)
        checks.check_keys(place, capability)
        check_rungs(place.at("fallback"), capability.fallback)
        check_sources(place, capability)
        check_keeping(place, capability)
        if contract is not None:
            declared = _compare(folder, place, capability, contract, authority)
    problems.raise_any()
    if declared is None:
        raise InvalidDocument(problems.found)
    return declared


def _read_declaration(folder: Path, problems: Problems) -> tuple[Place | None, Capability | None]:
    file = str(folder / FILE_NAME)
    path = _inside(folder, FILE_NAME)
    if path is None:
        problems.add(file, 1, "", "a file inside the folder", "a link that leaves it, or leads nowhere")
        return None, None
    content = read_bytes(path, file, problems, MAX_DECLARATION_BYTES)
    document: Document | None = None if content is None else read_document(content, file, problems)
    if document is None:
        return None, None
    return Place(file, document.root, "", problems), read_struct(document, Capability, problems)


def _read_contract_of(
    folder: Path, place: Place | None, capability: Capability | None, problems: Problems
) -> ReadContract | None:
    """The contract, also where the declaration has problems elsewhere and only says where the contract is."""
    if capability is not None:
        name = capability.contract
    elif place is not None and isinstance(place.at("contract").value.data, str):
        name = place.at("contract").value.data
    else:
        name = CONTRACT_NAME
    spot = place.at("contract") if place is not None else None
    path = _plain_file(folder, name)
    if path is None:
        if spot is not None:
            spot.add("a file inside the folder", f"{describe(name)}, which is none")
        return None
    file = str(folder / name)
    content = read_bytes(path, file, problems)
    return None if content is None else read_contract(content, file, problems)


def _inside(folder: Path, name: str) -> Path | None:
    """The real path of a file of the folder, or None when it leads out of the folder or nowhere."""
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # links in a circle; a name no file system takes
        return None


def _plain_file(folder: Path, name: str) -> Path | None:
    path = _inside(folder, name)
    try:
        return path if path is not None and path.is_file() else None
    except OSError:  # a name longer than the file system takes
        return None


def _check_files(folder: Path, place: Place, capability: Capability) -> None:
    model, reference = capability.model, capability.reference
    if model.file is not None:
        _check_file(folder, model.file, MAX_MODEL_BYTES, place.at("model", "file"))
    if model.call is not None:
        _check_code(folder, model.call, place.at("model", "call"))
    if capability.retraining is not None:
        _check_code(folder, capability.retraining.train, place.at("retraining", "train"))
    _check_file(folder, capability.samples, MAX_SAMPLES_BYTES, place.at("samples"))
    if reference is not None:
        _check_file(folder, reference.file, MAX_SAMPLES_BYTES, place.at("reference", "file"))


def _check_code(folder: Path, entry_point: str, place: Place) -> None:
    code = entry_point.rpartition(":")[0]
    if any(part.startswith(".") or part == "__pycache__" for part in PurePosixPath(code).parts):
        place.add("a file that is kept in a version; those in hidden directories are not", code)
    else:
        _check_file(folder, code, MAX_CODE_BYTES, place)


def _check_file(folder: Path, name: str, max_bytes: int, place: Place) -> None:
    path = _inside(folder, name)
    if path is None:
        place.add("a file inside the folder", f"{describe(name)}, which leads out of it or nowhere")
        return
    try:
        if not path.is_file():
            place.add("a file inside the folder", f"{describe(name)}, which is none")
        elif path.stat().st_size > max_bytes:
            place.add(f"a file of at most {max_bytes} bytes", f"{path.stat().st_size} bytes")
    except OSError as error:
        place.add("a readable file", error.strerror or type(error).__name__)


def _read_authority(folder: Path, place: Place, capability: Capability, problems: Problems) -> bytes:
    """The text of the policies; empty after a problem has been told."""
    name = capability.authority
    path = _plain_file(folder, name)
    if path is not None:
        return read_bytes(path, str(folder / name), problems, MAX_AUTHORITY_BYTES) or b""
    expected = (
        "Cedar policies in a file of the folder, as without any nothing may be decided; to start from:\n"
        f"{_FIRST_POLICIES}beside the declaration"
    )
    place.add(expected, f"{describe(name)}, which is none", "authority")
    return b""


def _compare(
    folder: Path, place: Place, capability: Capability, read: ReadContract, authority: bytes
) -> Declared | None:
    """Check the declaration against the contract, and compile it where both are sound."""
    named, rungs = capability.objects, place.at("fallback")
    taken = _object(place.at("objects", "input"), read.objects, named.input)
    given = _object(place.at("objects", "output"), read.objects, named.output)
    later = None if named.outcome is None else _object(place.at("objects", "outcome"), read.objects, named.outcome)
    if taken is not None:
        checks.check_input(place, capability, taken)
        check_conditions(rungs, capability.fallback, taken)
    if given is not None:
        checks.check_output(place, capability, given)
    checks.check_outcome(place, capability, given, later)
    check_source_objects(place, capability, read.objects)
    check_keeping_objects(place, capability, read.objects, taken=taken, given=given, later=later)
    described = [each for each in (taken, given, later) if each is not None]
    if len(described) == 2 + (named.outcome is not None):
        checks.check_protect(place, capability, described)
    if read.contract is None or given is None:
        return None
    output = compile_object(given)
    check_outputs(rungs, capability.fallback, output)
    if taken is None:
        return None
    outcome = None if later is None else compile_object(later)
    return Declared(folder, capability, read.contract, authority, compile_object(taken), output, outcome)


def _object(place: Place, objects: dict[str, SchemaObject | None], name: str) -> SchemaObject | None:
    if name not in objects:
        place.add(one_of("object", "the contract", name, objects), describe(name))
        return None
    found = objects[name]
    if found is not None and not found.properties:
        place.add("an object with properties", f"{describe(name)}, which has none")
        return None
    return found
