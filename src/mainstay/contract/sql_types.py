"""What the two sides of a query exchange: one JSON document a line, the opening first, then questions and answers."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

# number and boolean: the one value the query gave. null, other: it gave a value that no operator takes.
# refused: it is no query that may run. stopped: it took too long or too much. broken: it could not be run.
AnswerKind: TypeAlias = Literal["number", "boolean", "null", "other", "refused", "stopped", "broken"]


class SqlTable(Struct, frozen=True):
    """A table as queries see it: under each of its names, the rows of its Parquet files."""

    names: tuple[str, ...]
    files: tuple[str, ...]


class SqlLimits(Struct, frozen=True):
    """What one query may use."""

    seconds: float = 30.0
    memory_mb: int = 512
    temporary_mb: int = 2_048


class Opening(Struct, frozen=True):
    """The tables and limits of every query that follows."""

    tables: tuple[SqlTable, ...]
    limits: SqlLimits


class Question(Struct, frozen=True):
    query: str


class Answer(Struct, frozen=True):
    """`text` is the number as it is written, true or false, or why there is neither."""

    kind: AnswerKind
    text: str
