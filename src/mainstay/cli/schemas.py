from __future__ import annotations

import sys

from mainstay.capability.jsonschema import published_schema


def capability() -> None:
    """Print the JSON Schema of capability.yaml, for editors.

    Example: mainstay schema capability > capability.schema.json
    """
    sys.stdout.buffer.write(published_schema())
