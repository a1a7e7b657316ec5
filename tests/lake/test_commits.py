from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.errors import Misuse
from mainstay.lake.commits import (
    KEY,
    MAX_METADATA_BYTES,
    MAX_WRITERS,
    Notes,
    Said,
    first_line,
    newest_notes,
    properties_of,
    read_notes,
)


def commit(version: int, notes: Notes | None) -> tuple[int, dict[str, object]]:
    said = {} if notes is None else properties_of(notes).custom_metadata or {}
    return version, {"operation": "WRITE", **said}


def test_the_newest_commit_answers_when_nothing_came_between() -> None:
    notes = Notes(4, {"a": Said(7, {"after": "x"})})
    commits = iter([commit(5, notes), commit(4, None), commit(3, None)])
    assert newest_notes(commits, 5) == Notes(5, notes.writers)
    assert next(commits) == commit(3, None)  # no more were read than it took


@given(st.data())
def test_whatever_ran_beside_each_other_the_last_word_of_every_writer_is_found(data: st.DataObject) -> None:
    """Each commit knows what its maker had read, any earlier version; a writer's own follows its last."""
    truth: dict[str, Said] = {}
    known = [Notes(-1, {})]  # what is known of the writers as of each version
    history = [commit(0, Notes(-1, {}))]
    for version in range(1, data.draw(st.integers(1, 12)) + 1):
        kind = data.draw(st.sampled_from(["writer", "beside", "other engine"]))
        if kind == "other engine":
            history.insert(0, commit(version, None))
        elif kind == "beside":
            read = data.draw(st.integers(0, version - 1))
            history.insert(0, commit(version, Notes(read, known[read].writers)))
        else:
            writer = data.draw(st.sampled_from("abc"))
            truth = {**truth, writer: Said(version, {"v": version})}
            notes = Notes(version - 1, known[version - 1].writers).with_writer(writer, version, {"v": version})
            history.insert(0, commit(version, notes))
        known.append(Notes(version, truth))
    found = newest_notes(history, len(history) - 1)
    assert found.writers == truth


def test_what_other_engines_wrote_is_passed_over() -> None:
    assert read_notes({"operation": "MERGE"}) is None
    assert read_notes({KEY: {"an": "object"}}) is None
    assert read_notes({KEY: "{"}) is None
    assert newest_notes([(0, {})], 0) == Notes(0, {})


def test_what_a_commit_can_carry_is_bounded() -> None:
    with pytest.raises(Misuse, match=r"at most 65,536 bytes"):
        Notes().with_writer("w", 1, {"x": "y" * MAX_METADATA_BYTES})
    many = Notes(0, {f"w{n}": Said(1, {}) for n in range(MAX_WRITERS)})
    assert many.with_writer("w1", 2, {}).writers["w1"].position == 2
    with pytest.raises(Misuse, match="at most 64 writers"):
        many.with_writer("another", 1, {})


def test_an_error_of_the_engine_is_one_line() -> None:
    assert first_line(ValueError("what\n  0: <unknown>\n")) == "what"
    assert first_line(ValueError()) == "ValueError"
