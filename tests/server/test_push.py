from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import tiny
from mainstay.authority.keys import create_key
from mainstay.cli.common import signing_key
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.embedded import _Host
from mainstay.intake import pushing
from mainstay.intake.adopting import PushFetcher
from mainstay.intake.landing import landing_of
from mainstay.intake.pushing import PUSHED
from mainstay.ledger.journal import Journal
from server.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.workspace import Workspace

MOST = 2 << 20
SOURCES: list[dict[str, Any]] = [
    {"name": "orders", "push": {}},
    {"name": "small", "push": {"max_waiting_bytes": MOST}},
    {"name": "rates", "rest": {"url": "http://127.0.0.1:1"}, "key": ["a"]},
]
LINES = {"content-type": "application/x-ndjson"}


def events_of(source: str) -> str:
    return f"/v1/capabilities/{tiny.NAME}/sources/{source}/events"


class Served:
    """The tiny capability with sources that take events, in this process."""

    def __init__(self, workspace: Workspace, token: str) -> None:
        self.workspace = workspace
        self.host = _Host(workspace)
        self.token = token

    def push(self, body: bytes, headers: dict[str, str] | None = None, *, source: str = "orders", **more: Any) -> Any:
        given = {"authorization": f"Bearer {self.token}"} | (headers or {})
        return Exchange(events_of(source), body, given, **more).run(self.host)

    def landed(self, source: str = "orders") -> list[Any]:
        """Adopt what was pushed; every record that landed."""
        landing = landing_of(self.workspace.data, tiny.NAME, source)
        fetcher = PushFetcher("a test", landing)
        cursor = next((item.cursor for item in reversed(landing.waiting())), None)
        while (item := fetcher.step(cursor)) is not None:
            cursor = item.cursor
        return [json.loads(line) for each in landing.waiting() for line in landing.path(each).read_bytes().splitlines()]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory: Path = tmp_path_factory.mktemp("push") / "w"
    made = Served(*tiny.make_served(directory, sources=SOURCES))
    yield made
    made.host.close()


@pytest.fixture
def before(served: Served) -> int:
    return len(served.landed())


def test_events_are_accepted_and_land_as_they_came(served: Served, before: int) -> None:
    for body, headers, number in (
        (b'{"id": 1, "price": 1.10}', {}, 1),
        (b'[{"id": 2}, {"id": 3}]', {"content-type": "application/json; charset=utf-8"}, 2),
        (b'{"id": 4}\n{"id": 5}\n', LINES, 2),
        (b"[]", {}, 0),
        (b"", LINES, 0),
    ):
        pushed = served.push(body, headers)
        assert (pushed.status, json.loads(pushed.answer)) == (202, {"accepted": number})
    assert [each["id"] for each in served.landed()[before:]] == [1, 2, 3, 4, 5]


def test_a_body_may_come_in_parts(served: Served, before: int) -> None:
    assert served.push(b'{"id": "in parts"}', parts=3).status == 202
    assert served.landed()[before:] == [{"id": "in parts"}]


@pytest.mark.parametrize("body", [b"", b"7", b'[{"id": 1}, 2]', b'{"id": "\xff"}', b'{"id": 1'])
def test_a_call_of_another_form_is_refused_whole(served: Served, before: int, body: bytes) -> None:
    refused = served.push(body)
    assert refused.status == 400
    assert refused.answer_headers["content-type"] == "application/problem+json"
    assert json.loads(refused.answer)["type"] == "urn:mainstay:problem:malformed-input"
    assert len(served.landed()) == before


def test_a_call_that_comes_again_under_its_key_is_answered_alike_and_lands_once(served: Served, before: int) -> None:
    key = {"idempotency-key": "order-7"}
    answers = [served.push(b'[{"id": 7}, {"id": 8}]', key) for _ in range(3)]
    assert {(each.status, each.answer) for each in answers} == {(202, b'{"accepted":2}')}
    assert served.landed()[before:] == [{"id": 7}, {"id": 8}]
    served.push(b'[{"id": 7}, {"id": 8}]', key)
    served.push(b'{"id": 9}', key)
    assert served.landed()[before:] == [{"id": 7}, {"id": 8}, {"id": 9}]


@pytest.mark.parametrize("key", ["x" * 256, "schlüssel", "a\tb"])
def test_a_key_that_is_none_is_refused(served: Served, key: str) -> None:
    assert served.push(b"{}", {"idempotency-key": key}).status == 400


def test_only_keys_that_may_push_can(served: Served) -> None:
    denied = served.push(b"{}", {"authorization": "Bearer nobody"})
    assert denied.status == 401
    _, token = create_key(
        served.workspace.access,
        signing_key(served.workspace),
        name="decides",
        capabilities=["*"],
        verbs=["decide", "report", "read"],
    )
    other = Served(served.workspace, token)
    try:
        refused = other.push(b"{}")
        assert refused.status == 403
        assert "may not push" in json.loads(refused.answer)["detail"]
    finally:
        other.host.close()


def test_what_no_policy_permits_is_denied(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, sources=SOURCES)
    policies = folder / "authority.cedar"
    policies.write_text(policies.read_text().replace('Mainstay::Action::"push", ', ""))
    record_promotion(workspace, tiny.NAME, record_registration(workspace, folder, None).version, "a test")
    made = Served(workspace, token)
    try:
        refused = made.push(b"{}")
        assert refused.status == 403
        assert "no policy permits this" in json.loads(refused.answer)["detail"]
    finally:
        made.host.close()


@pytest.mark.parametrize(("source", "status"), [("rates", 404), ("unknown", 404)])
def test_only_sources_that_take_events_are_there(served: Served, source: str, status: int) -> None:
    assert served.push(b"{}", source=source).status == status


def test_events_are_posted(served: Served) -> None:
    refused = served.push(b"", method="GET")
    assert (refused.status, refused.answer_headers["allow"]) == (405, "POST")


def test_more_than_may_wait_is_turned_away_until_it_is_in_the_table(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"note": "x" * 900_000}).encode()
    answers = [served.push(body, source="small") for _ in range(3)]
    assert [each.status for each in answers] == [202, 202, 503]
    assert answers[2].answer_headers["retry-after"] == "10"
    assert json.loads(answers[2].answer)["type"] == "urn:mainstay:problem:too-much-waits"
    assert served.push(b" " * (MOST + 1), source="small").status == 413
    assert len(served.landed("small")) == 2  # in items now, and waiting as before
    landing = landing_of(served.workspace.data, tiny.NAME, "small")
    for item in landing.waiting()[:1]:
        landing.drop(item)
    monkeypatch.setattr(pushing, "LOOK_SECONDS", -1.0)  # it looks again at once
    assert served.push(body, source="small").status == 202


def test_a_disk_that_takes_nothing_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mainstay.ledger.wal.os.fdatasync", fail)
        refused = served.push(b'{"id": "lost"}')
    assert refused.status == 503
    assert refused.answer_headers["retry-after"] == "1"
    assert json.loads(refused.answer)["type"] == "urn:mainstay:problem:unrecorded"


def test_an_inbox_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    made = Served(*tiny.make_served(tmp_path / "w", sources=SOURCES))
    home = landing_of(made.workspace.data, tiny.NAME, "orders").folder.parent
    home.parent.mkdir(parents=True)
    home.write_text("a file stands where the folder should")
    try:
        assert made.push(b"{}").status == 503
    finally:
        made.host.close()


def test_pushes_are_counted(served: Served) -> None:
    served.push(b"[{}, {}]")
    exchange = Exchange("/metrics", b"", {"authorization": f"Bearer {served.token}"}, method="GET").run(served.host)
    (line,) = [
        each
        for each in exchange.answer.decode().splitlines()
        if each.startswith("mainstay_pushed_events_total{") and 'source="orders"' in each
    ]
    assert line.startswith(f'mainstay_pushed_events_total{{capability="{tiny.NAME}",source="orders"}} ')
    assert int(line.split()[-1]) >= 2


def test_what_is_under_way_is_answered_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Served(*tiny.make_served(tmp_path / "w", sources=SOURCES))
    closed = []
    close = Journal.close

    def note(journal: Journal) -> None:
        closed.append(journal.outstanding)
        close(journal)

    monkeypatch.setattr(Journal, "close", note)
    made.push(b"{}")
    made.host.close()
    assert closed == [0, 0]
    assert sum(1 for _ in (landing_of(made.workspace.data, tiny.NAME, "orders").folder.parent / PUSHED).iterdir()) == 1
    assert made.landed() == [{}]
