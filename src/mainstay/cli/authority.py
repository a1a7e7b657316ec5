from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mainstay.authority.policy import compile_authority
from mainstay.authority.schema import answer_context, schema_document, schema_text
from mainstay.capability.load import load_capability
from mainstay.cli.common import out, print_json
from mainstay.errors import InvalidDocument

AsJson = Annotated[bool, Parameter(negative="", help="Print facts as JSON.")]


def schema(directory: Path, /, *, json: AsJson = False) -> None:
    """Print the Cedar schema of a capability folder: what its authority.cedar may speak of.

    Example: mainstay authority schema capabilities/late-arrival > late-arrival.cedarschema

    Parameters
    ----------
    directory
        The folder that holds capability.yaml.
    """
    declared = load_capability(directory)
    document = schema_document(answer_context(declared.input.properties, declared.output.properties))
    if json:
        print_json(document)
    else:
        out.print(schema_text(document), markup=False, end="")


def check(directory: Path, /, *, json: AsJson = False) -> int:
    """List every problem of a folder's authority.cedar, with its line.

    Example: mainstay authority check capabilities/late-arrival

    Parameters
    ----------
    directory
        The folder that holds capability.yaml.
    """
    try:
        declared = load_capability(directory)
        authority = compile_authority(declared)
    except InvalidDocument as invalid:
        if json:
            print_json({"valid": False, "problems": invalid.problems})
        else:
            for problem in invalid.problems:
                out.print(str(problem), markup=False)
            out.print(f"{len(invalid.problems)} problem{'' if len(invalid.problems) == 1 else 's'}")
        return 1
    name, policies = declared.capability.name, [policy.id for policy in authority.policies]
    if json:
        facts = {"valid": True, "capability": name, "digest": authority.digest, "policies": policies}
        print_json({**facts, "answers_judged": authority.judged, "problems": []})
    else:
        counted = f"{len(policies)} polic{'y' if len(policies) == 1 else 'ies'}"
        out.print(f"{name}: {counted}, no problems; answers are judged {authority.judged}", markup=False)
    return 0
