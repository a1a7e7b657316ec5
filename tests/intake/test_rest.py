from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from intake.api import Reply, Request, api, in_turn, said
from mainstay.capability.sources import Pages, Rest, Source
from mainstay.errors import Misuse
from mainstay.intake import rest
from mainstay.intake.fetching import Unavailable, open_fetcher
from mainstay.intake.landing import Landing
from mainstay.intake.rest import MAX_TIES, RestFetcher
from mainstay.workspace import Settings, Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.intake.landing import Item


class Feed:
    """A source of an API, its landing, and where a runner would go on."""

    def __init__(self, folder: Path, url: str, **declared: Any) -> None:
        asked = {name: declared.pop(name) for name in list(declared) if name in Rest.__struct_fields__}
        asked = {"timeout_seconds": 2.0, "retries": 0} | asked
        self.source = Source(name="orders", rest=Rest(url=url, **asked), **declared)
        self.landing = Landing(folder / "landing")
        self.cursor: Any = None
        self.pauses: list[float] = []
        self.fetcher = self.open()

    def open(self) -> RestFetcher:
        """Another process: whatever the fetcher before knew is gone."""
        self.fetcher = RestFetcher(self.source, self.landing, pause=self.pauses.append)
        return self.fetcher

    def step(self) -> Item | None:
        item = self.fetcher.step(self.cursor)
        if item is not None:
            self.cursor = json.loads(json.dumps(item.cursor))
        return item

    def round(self) -> list[Item]:
        """Step until there is nothing new."""
        items = []
        while (item := self.step()) is not None:
            items.append(item)
            assert len(items) < 100
        return items

    def lines(self) -> list[bytes]:
        """Every record that landed."""
        return [line for item in self.landing.waiting() for line in self.landing.path(item).read_bytes().splitlines()]

    def ids(self) -> list[Any]:
        return [json.loads(line)["id"] for line in self.lines()]

    def codes(self) -> list[str]:
        return [noticed.code for item in self.landing.waiting() for noticed in item.noticed]


def numbers(first: int, last: int) -> list[dict[str, int]]:
    return [{"id": number} for number in range(first, last + 1)]


def paged(records: list[Any], size: int, pages: Pages) -> Any:
    """An API over these records; it gives those of `since` and later when it is asked so, as most do."""

    def answer(request: Request) -> Reply:
        query = request.query
        found = [each for each in records if each["id"] >= int(query.get("since", "0"))]
        named = query.get(pages.parameter or {"number": "page", "cursor": "cursor"}.get(pages.style, "offset"), "")
        at = int(named or 0)
        begin = (at - pages.first) * size if pages.style == "number" and named else at
        page = found[begin : begin + size]
        following = begin + size if begin + size < len(found) else None
        if pages.style == "link":
            more = "" if "since" not in query else f"&since={query['since']}"
            link = {} if following is None else {"link": f'</orders?offset={following}{more}>; rel="next"'}
            return said(page, headers=link)
        if pages.style == "next_url":
            return said({"data": page, "paging": {"next": following and f"/orders?offset={following}"}})
        if pages.style == "cursor":
            return said({"data": page, "paging": {"next": following}})
        return said({"data": page})

    return answer


STYLES = [
    (Pages(), None),
    (Pages(style="link"), None),
    (Pages(style="next_url", path="paging.next"), "data"),
    (Pages(style="cursor", path="paging.next", parameter="after"), "data"),
    (Pages(style="offset", size=3), "data"),
    (Pages(style="number", first=0), "data"),
    (Pages(style="number"), "data"),
]


@pytest.mark.parametrize(("pages", "records"), STYLES, ids=lambda each: getattr(each, "style", ""))
def test_each_page_is_an_item_and_each_record_comes_once(tmp_path: Path, pages: Pages, records: str | None) -> None:
    size = 100 if pages.style == "none" else 3
    answer = paged(numbers(1, 8), size, pages)
    plain = (lambda request: said(json.loads(answer(request).body)["data"])) if pages.style == "none" else answer
    with api(plain) as server:
        feed = Feed(tmp_path, f"{server.url}/orders", pages=pages, records=records)
        items = feed.round()
        assert len(items) == (1 if pages.style == "none" else 3)
        assert feed.ids() == list(range(1, 9))
        assert feed.round() == []  # the same pages again
        assert feed.codes() == []
    assert items[0].origin.startswith(f"GET {server.url}/orders")


@pytest.mark.parametrize(("pages", "records"), STYLES[1:], ids=lambda each: getattr(each, "style", ""))
@pytest.mark.parametrize("killed_after", [1, 2])
def test_another_process_goes_on_where_the_one_before_was(
    tmp_path: Path, pages: Pages, records: str | None, killed_after: int
) -> None:
    with api(paged(numbers(1, 8), 3, pages)) as server:
        feed = Feed(tmp_path, f"{server.url}/orders", pages=pages, records=records)
        for _ in range(killed_after):
            feed.step()
        asked = len(server.requests)
        feed.open()
        feed.round()
        assert feed.ids() == list(range(1, 9))
        assert server.requests[asked].query != server.requests[0].query
        feed.open()
        assert feed.round() == []


def test_only_records_behind_the_greatest_value_are_asked_for_and_those_at_it_come_once(tmp_path: Path) -> None:
    records: list[Any] = numbers(1, 4)
    pages = Pages(style="offset")
    with api(paged(records, 2, pages)) as server:
        feed = Feed(
            tmp_path, f"{server.url}/orders", pages=pages, records="data", cursor="id", cursor_parameter="since"
        )
        feed.round()
        assert feed.ids() == [1, 2, 3, 4]
        records += [{"id": 4, "line": 2}, {"id": 5}]
        feed.round()
        assert feed.lines()[4:] == [b'{"id": 4, "line": 2}', b'{"id": 5}']
        assert server.requests[-1].query["since"] == "4"
        feed.round()
        assert server.requests[-1].query["since"] == "5"
        assert len(feed.lines()) == 6
        assert feed.codes() == []


def test_known_pages_that_take_long_are_passed_over_once_though_each_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(style="offset")
    with api(paged(numbers(1, 8), 2, pages)) as server:
        feed = Feed(tmp_path, server.url, pages=pages, records="data", key=("id",))
        feed.round()
        monkeypatch.setattr(rest, "MAX_STEP_SECONDS", -1.0)
        feed.open()
        assert feed.step() is not None  # what is left of the round before, and the first page of the next
        for offset in ("2", "4", "6"):
            feed.open()
            item = feed.step()
            assert item is not None
            assert (item.bytes, server.requests[-1].query) == (0, {"offset": offset})
        assert feed.ids() == list(range(1, 9))


def test_a_newest_first_api_is_read_to_its_end_before_the_cursor_counts(tmp_path: Path) -> None:
    pages = Pages(style="offset")
    with api(paged(numbers(1, 9)[::-1], 3, pages)) as server:
        feed = Feed(tmp_path, server.url, pages=pages, records="data", cursor="id", cursor_parameter="since")
        feed.step()
        feed.open()  # killed with the greatest value seen, and most pages not
        feed.round()
        assert sorted(feed.ids()) == list(range(1, 10))
        assert all("since" not in request.query for request in server.requests[:4])


def test_records_are_kept_as_they_came(tmp_path: Path) -> None:
    body = b'[\n {"id": 12345678901234567890123, "price": 1.10, "a": "\\u00e9\\n\\"],[", "a": 2},\n\t{ }\r\n , 7, null]'
    with api(in_turn(Reply(body))) as server:
        feed = Feed(tmp_path, server.url)
        feed.round()
        assert feed.lines() == [
            b'{"id": 12345678901234567890123, "price": 1.10, "a": "\\u00e9\\n\\"],[", "a": 2}',
            b"{ }",
            b"7",
            b"null",
        ]


def test_new_dropped_and_changed_columns_land_as_they_are(tmp_path: Path) -> None:
    changed = [{"id": 1, "a": 1}, {"id": 2, "a": "1"}, {"id": 3}, {"id": 4, "a": 1, "b": {"c": [1]}}]
    with api(in_turn(said(changed))) as server:
        feed = Feed(tmp_path, server.url)
        feed.round()
        assert [json.loads(line) for line in feed.lines()] == changed
        assert feed.codes() == []


def test_an_answer_may_be_one_record(tmp_path: Path) -> None:
    with api(in_turn(Reply(b' {"id": 1,\n "x": 2}\n'))) as server:
        feed = Feed(tmp_path, server.url)
        feed.round()
        assert feed.lines() == [b'{"id": 1,  "x": 2}']


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b'{"data": null}', b'{"data": []}'])
def test_no_records_are_nothing_new(tmp_path: Path, body: bytes) -> None:
    with api(in_turn(Reply(body))) as server:
        feed = Feed(tmp_path, server.url, records="data" if b"data" in body else None)
        assert feed.round() == []
        assert feed.landing.waiting() == []


# What an API does that it should not.


def fails(feed: Feed, code: str) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        feed.step()
    assert caught.value.code == code, caught.value
    assert feed.landing.waiting() == []
    return caught.value


def test_an_api_that_is_down_is_told_so(tmp_path: Path) -> None:
    with api(in_turn(Reply())) as server:
        pass
    feed = Feed(tmp_path, server.url, retries=2)
    fails(feed, "source_down")
    assert len(feed.pauses) == 2
    assert all(pause <= limit for pause, limit in zip(feed.pauses, (0.5, 1.0), strict=True))


@pytest.mark.parametrize("reply", [Reply(b"[]", drips=True), Reply(hangs=True), Reply(b"[1" * 50, drips=True)])
def test_an_api_that_does_not_answer_in_its_time_is_left(tmp_path: Path, reply: Reply) -> None:
    with api(in_turn(reply)) as server:
        feed = Feed(tmp_path, server.url, timeout_seconds=0.3)
        fails(feed, "source_slow")


def test_a_rate_limit_is_waited_for_and_noticed(tmp_path: Path) -> None:
    limited = Reply(status=429, headers={"retry-after": "7"})
    with api(in_turn(limited, said(numbers(1, 2)))) as server:
        feed = Feed(tmp_path, server.url, retries=1)
        feed.round()
        assert feed.ids() == [1, 2]
        assert feed.codes() == ["rate_limited"]
        assert 7 <= feed.pauses[0] <= 7.5


def test_a_rate_limit_for_longer_than_a_step_may_wait_is_handed_on(tmp_path: Path) -> None:
    limited = Reply(status=429, headers={"retry-after": "3600"})
    with api(in_turn(limited)) as server:
        feed = Feed(tmp_path, server.url, retries=5)
        assert fails(feed, "rate_limited").retry_after_seconds == 3600
        assert feed.pauses == []


@pytest.mark.parametrize("said_so", ["Fri, 31 Dec 2100 23:59:59 GMT", "99999999999"])
def test_a_far_date_to_come_again_is_bounded(tmp_path: Path, said_so: str) -> None:
    with api(in_turn(Reply(status=503, headers={"retry-after": said_so}))) as server:
        assert fails(Feed(tmp_path, server.url), "source_down").retry_after_seconds == 86_400


@pytest.mark.parametrize("said_so", ["Thu, 01 Jan 1970 00:00:00 GMT", "soon", "", "-5"])
def test_a_time_to_come_again_that_has_passed_or_is_none_is_not_waited_for(tmp_path: Path, said_so: str) -> None:
    limited = Reply(status=503, headers={"retry-after": said_so})
    with api(in_turn(limited, said(numbers(1, 1)))) as server:
        feed = Feed(tmp_path, server.url, retries=1)
        feed.round()
        assert feed.pauses[0] <= 0.5


def test_errors_of_the_server_that_pass_are_noticed(tmp_path: Path) -> None:
    with api(in_turn(Reply(status=500), Reply(status=502), said(numbers(1, 1)))) as server:
        feed = Feed(tmp_path, server.url, retries=3)
        feed.round()
        assert feed.ids() == [1]
        assert feed.codes() == ["source_down"]


@pytest.mark.parametrize("said_type", ["text/html; charset=utf-8", "application/json"])
def test_html_is_no_json_whatever_it_calls_itself(tmp_path: Path, said_type: str) -> None:
    page = Reply(b"<!DOCTYPE html><title>Sign in, Ms Private</title>", headers={"content-type": said_type})
    with api(in_turn(page)) as server:
        error = fails(Feed(tmp_path, server.url), "not_json")
    assert "HTML" in str(error)
    assert "Private" not in str(error)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b'content-length: 100\r\n\r\n[{"id": 1}]',
        HEAD + b'transfer-encoding: chunked\r\n\r\nb\r\n[{"id": 1}]\r\n',
        HEAD + b'transfer-encoding: chunked\r\n\r\n40\r\n[{"id": 1}',
        HEAD + b'\r\n[{"id": 1}, {"id"',
        HEAD + b"content-encoding: gzip\r\n\r\n" + bytes.fromhex("1f8b0800000000000003"),
    ],
)
def test_half_an_answer_is_taken_for_none(tmp_path: Path, raw: bytes) -> None:
    with api(in_turn(Reply(raw=raw))) as server:
        fails(Feed(tmp_path, server.url), "not_whole")


def test_half_an_answer_is_asked_for_again(tmp_path: Path) -> None:
    half = Reply(raw=HEAD + b'content-length: 100\r\n\r\n[{"id": 1}]')
    with api(in_turn(half, said(numbers(1, 2)))) as server:
        feed = Feed(tmp_path, server.url, retries=1)
        feed.round()
        assert feed.ids() == [1, 2]
        assert feed.codes() == ["not_whole"]


@pytest.mark.parametrize("body", [b"", b"nonsense", b'{"id": 1}{', b"[1] [2]", b"[" * 100_000, b'[{"id": NaN}]'])
def test_what_is_no_json_is_told_so(tmp_path: Path, body: bytes) -> None:
    with api(in_turn(Reply(body))) as server:
        with pytest.raises(Unavailable) as caught:
            Feed(tmp_path, server.url).step()
        assert caught.value.code in {"not_json", "not_whole"}


@pytest.mark.parametrize("answer", [{"items": []}, {"data": {"id": 1}}, {"data": "x"}, [1], {"data": 7}, "text"])
def test_records_that_are_not_where_they_are_declared_are_told_so(tmp_path: Path, answer: Any) -> None:
    with api(in_turn(said(answer))) as server:
        fails(Feed(tmp_path, server.url, records="data"), "records_missing")


def test_a_page_that_comes_twice_is_taken_once_and_noticed(tmp_path: Path) -> None:
    bodies = [numbers(1, 2), numbers(1, 2), numbers(3, 4), []]
    with api(lambda request: said(bodies[int(request.query.get("page", "1")) - 1])) as server:
        feed = Feed(tmp_path, server.url, pages=Pages(style="number"))
        feed.round()
        assert feed.ids() == [1, 2, 3, 4]
        assert feed.codes() == ["repeated_page"]


def test_pages_that_lead_back_end_the_round(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        page = int(request.query.get("p", "1"))
        return said([{"id": page}], headers={"link": f'</?p={page % 3 + 1}>; rel="prev next"'})

    with api(answer) as server:
        feed = Feed(tmp_path, server.url, pages=Pages(style="link"))
        for _ in range(3):
            assert feed.step() is not None
        with pytest.raises(Unavailable, match="repeated_page"):
            feed.round()
        asked = len(server.requests)
        assert feed.ids() == [1, 2, 3]
        feed.open()
        with pytest.raises(Unavailable, match="repeated_page"):
            feed.round()
        assert feed.ids() == [1, 2, 3]
        assert len(server.requests) < asked + 10


def test_a_token_that_names_itself_ends_the_round_with_its_page(tmp_path: Path) -> None:
    with api(lambda request: said({"data": [{"id": request.query.get("cursor", "0")}], "next": "a"})) as server:
        feed = Feed(tmp_path, server.url, records="data", pages=Pages(style="cursor", path="next"))
        items = feed.round()
        assert feed.ids() == ["0", "a"]
        assert [each.code for each in items[1].noticed] == ["repeated_page"]


def test_a_feed_that_gives_the_same_page_for_ever_is_left(tmp_path: Path) -> None:
    with api(in_turn(said(numbers(1, 2)))) as server:
        feed = Feed(tmp_path, server.url, pages=Pages(style="offset"))
        feed.step()
        with pytest.raises(Unavailable, match="repeated_page"):
            feed.round()
        assert feed.ids() == [1, 2]
        assert len(server.requests) == 4


def test_records_before_the_cursor_land_and_are_noticed(tmp_path: Path) -> None:
    replies = in_turn(said(numbers(5, 6)), said([*numbers(1, 2), *numbers(6, 7)]), said([]))
    with api(replies) as server:
        feed = Feed(tmp_path, server.url, cursor="id", cursor_parameter="since")
        feed.round()
        feed.round()
        assert feed.ids() == [5, 6, 1, 2, 7]
        assert feed.codes() == ["cursor_backwards"]
        assert feed.cursor["newest"] == 7
        feed.round()
        assert server.requests[-1].query["since"] == "7"


def test_a_feed_that_now_ends_before_the_cursor_does_not_move_it(tmp_path: Path) -> None:
    with api(in_turn(said(numbers(5, 6)), said(numbers(1, 3)))) as server:
        feed = Feed(tmp_path, server.url, cursor="id", cursor_parameter="since")
        feed.round()
        feed.round()
        assert feed.ids() == [5, 6, 1, 2, 3]
        assert feed.codes() == ["cursor_backwards"]
        assert feed.cursor["newest"] == 6


def test_records_without_a_cursor_or_with_another_type_of_it_land_and_are_noticed(tmp_path: Path) -> None:
    odd = [{"id": 1}, {"x": 1}, {"id": None}, {"id": "7"}, {"id": True}, {"id": [1]}, {"id": 2}, 7]
    with api(in_turn(said(odd))) as server:
        feed = Feed(tmp_path, server.url, cursor="id", cursor_parameter="since")
        feed.round()
        assert [json.loads(line) for line in feed.lines()] == odd
        assert feed.codes() == ["column_missing", "type_changed"]
        assert feed.cursor["newest"] == 2


def test_a_page_that_the_api_knows_no_more_begins_the_round_anew(tmp_path: Path) -> None:
    expired = False

    def answer(request: Request) -> Reply:
        if "cursor" not in request.query:
            return said({"data": numbers(1, 2), "next": "new" if expired else "old"})
        if request.query["cursor"] == "old":
            return Reply(status=410)
        return said({"data": numbers(3, 4), "next": None})

    with api(answer) as server:
        feed = Feed(tmp_path, server.url, records="data", pages=Pages(style="cursor", path="next"), key=("id",))
        feed.step()
        expired = True
        feed.open()
        feed.round()
        assert feed.ids() == [1, 2, 3, 4]
        assert feed.codes() == ["place_lost"]


@pytest.mark.parametrize("lost", [Reply(status=410), said({"data": numbers(3, 4), "next": "a"})])
@pytest.mark.parametrize("killed", [False, True])
def test_a_round_that_did_not_go_to_its_end_does_not_move_the_cursor(tmp_path: Path, lost: Reply, killed: bool) -> None:
    mended = False

    def answer(request: Request) -> Reply:
        """Newest first, and without a way to the second page before it is mended."""
        place = request.query.get("cursor", "")
        if "since" in request.query:
            return said({"data": [each for each in numbers(1, 4) if each["id"] >= int(request.query["since"])]})
        if place == "":
            return said({"data": numbers(3, 4), "next": "a"})
        if place == "a" and not mended:
            return lost if lost.status == 410 else said({"data": numbers(3, 4), "next": "b"})
        if place == "b":
            return said({"data": numbers(3, 4), "next": "a"})
        return said({"data": numbers(1, 2), "next": None})

    with api(answer) as server:
        pages = Pages(style="cursor", path="next")
        feed = Feed(tmp_path, server.url, records="data", pages=pages, cursor="id", cursor_parameter="since")
        feed.step()
        if killed:
            feed.open()
        with pytest.raises(Unavailable, match=r"place_lost|repeated_page"):
            feed.round()
        mended = True
        feed.open()
        feed.round()
        assert feed.ids() == [3, 4, 1, 2]
        assert feed.round() == []
        assert server.requests[-1].query == {"since": "4"}


def test_numbered_pages_may_end_with_not_found(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        page = int(request.query.get("page", "1"))
        return Reply(status=404) if page > 2 else said(numbers(page, page))

    with api(answer) as server:
        feed = Feed(tmp_path, server.url, pages=Pages(style="number"))
        feed.round()
        assert feed.ids() == [1, 2]
        assert feed.codes() == []


@pytest.mark.parametrize("status", [400, 404, 418])
def test_a_refused_first_page_is_told_so(tmp_path: Path, status: int) -> None:
    with api(in_turn(Reply(status=status))) as server:
        assert str(status) in str(fails(Feed(tmp_path, server.url), "source_down"))


def test_ties_are_kept_so_far_and_no_farther(tmp_path: Path) -> None:
    records = [{"day": "2026-01-01", "n": number} for number in range(MAX_TIES + 10)]
    with api(in_turn(said(records))) as server:
        feed = Feed(tmp_path, server.url, cursor="day", cursor_parameter="since", key=("n",))
        feed.round()
        assert len(feed.cursor["ties"]) == MAX_TIES
        assert len(json.dumps(feed.cursor)) < 64_000


@pytest.mark.parametrize("whole", [False, True])
def test_a_cursor_of_another_declaration_keeps_the_value_of_a_whole_round_and_no_place(
    tmp_path: Path, whole: bool
) -> None:
    pages = Pages(style="offset")
    declared: dict[str, Any] = {"pages": pages, "records": "data", "cursor": "id", "cursor_parameter": "since"}
    with api(paged(numbers(1, 8), 3, pages)) as server:
        feed = Feed(tmp_path, f"{server.url}/a", **declared)
        feed.round()
        if whole:  # that of the item is a place in the first round; that of a round without news is none
            feed.cursor = feed.cursor | {"place": None}
        asked = len(server.requests)
        moved = Feed(tmp_path, f"{server.url}/b", **declared)
        moved.cursor = feed.cursor
        moved.round()
        assert moved.ids() == list(range(1, 9))
        assert server.requests[asked].query == ({"since": "8", "offset": "0"} if whole else {"offset": "0"})


@pytest.mark.parametrize("cursor", [{"files": ["a.csv"]}, 7, {"of": "x", "field": "other"}])
def test_a_cursor_of_another_kind_of_source_is_no_cursor(tmp_path: Path, cursor: Any) -> None:
    with api(in_turn(said(numbers(1, 2)))) as server:
        feed = Feed(tmp_path, server.url)
        feed.cursor = cursor
        feed.round()
        assert feed.ids() == [1, 2]


def test_a_disk_that_takes_no_more_moves_nothing(tmp_path: Path) -> None:
    with api(in_turn(said(numbers(1, 2)))) as server:
        feed = Feed(tmp_path, server.url)
        (tmp_path / "landing").write_text("a file stands where the folder should")
        for _ in range(2):
            with pytest.raises(OSError, match="landing"):
                feed.step()
        (tmp_path / "landing").unlink()
        feed.round()
        assert feed.ids() == [1, 2]


def test_it_is_opened_by_its_kind(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, Settings(log="tests.example.com/rest"))
    landing = Landing(tmp_path / "landing")
    source = Source(name="orders", rest=Rest(url="http://127.0.0.1:1"))
    assert isinstance(open_fetcher(workspace, "lending", source, landing), RestFetcher)
    with pytest.raises(Misuse, match="expected one of"):
        open_fetcher(workspace, "lending", Source(name="orders"), landing)


@pytest.mark.parametrize(
    "declared",
    [
        {"cursor": "id"},
        {"cursor_parameter": "since"},
        {"pages": Pages(style="cursor")},
        {"pages": Pages(style="next_url")},
    ],
)
def test_a_declaration_that_cannot_be_followed_is_misuse(tmp_path: Path, declared: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        Feed(tmp_path, "http://127.0.0.1:1", **declared)
