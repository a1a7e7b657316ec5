from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from intake.api import Reply, Request, api, in_turn, said
from intake.test_rest import Feed, numbers
from mainstay.capability.sources import ApiKey, ClientCredentials, Pages, RestAuth, Secret
from mainstay.errors import Misuse
from mainstay.intake.fetching import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr/t+v&l ue"
KEY = Secret(variable="ORDERS_KEY")


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_KEY", SECRET)
    monkeypatch.setenv("ORDERS_ID", "client:1")


def shown(feed: Feed, error: BaseException | None = None, log: str = "") -> str:
    """Everything that stands anywhere about a feed."""
    texts = [str(error), repr(error), log]
    texts += [path.read_text("utf-8") for path in feed.landing.folder.glob("*") if path.is_file()]
    return "\n".join(texts)


def unsecret(text: str) -> bool:
    forms = (SECRET, "s3cr%2Ft%2Bv%26l+ue", "s3cr%2Ft%2Bv%26l%20ue", "s3cr/t%2Bv%26l", "s3cr/t%2Bv%26l%20ue")
    return not any(form in text for form in forms)


def test_a_bearer_token_goes_with_each_call(tmp_path: Path) -> None:
    with api(in_turn(said(numbers(1, 1)))) as server:
        feed = Feed(tmp_path, server.url, auth=RestAuth(bearer=KEY))
        feed.round()
        assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"
        assert unsecret(shown(feed))


def test_a_key_goes_in_a_header_or_in_the_query_and_is_never_kept(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    in_header = RestAuth(api_key=ApiKey(key=KEY, name="X-Token"))
    with api(in_turn(said(numbers(1, 1)))) as server:
        Feed(tmp_path / "a", server.url, auth=in_header).round()
        assert server.requests[0].headers["x-token"] == SECRET

    def answer(request: Request) -> Reply:
        """An API that gives the key back in the address of the next page, as some do."""
        if "page" in request.query:
            return said(numbers(2, 2))
        return said(numbers(1, 1), headers={"link": '</?page=2&key=s3cr%2Ft%2Bv%26l+ue>; rel="next"'})

    in_query = RestAuth(api_key=ApiKey(key=KEY, name="key", place="query"))
    with api(answer) as server:
        feed = Feed(tmp_path / "b", server.url, auth=in_query, pages=Pages(style="link"))
        feed.round()
        assert feed.ids() == [1, 2]
        assert [request.query["key"] for request in server.requests] == [SECRET, SECRET]
        assert unsecret(shown(feed))


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_secret_is_told_and_not_shown(tmp_path: Path, status: int) -> None:
    with api(in_turn(Reply(status=status))) as server:
        feed = Feed(tmp_path, server.url, auth=RestAuth(bearer=KEY), retries=3)
        with pytest.raises(Unavailable, match="not_authorized") as caught:
            feed.step()
        assert len(server.requests) == 1
    assert unsecret(shown(feed, caught.value))


def test_a_secret_that_a_server_says_back_is_hidden(tmp_path: Path) -> None:
    lead_on = "https://other.example/?key=s3cr%2Ft%2Bv%26l+ue"
    replies = [Reply(status=302, headers={"location": lead_on}), said([], headers={"content-encoding": SECRET})]
    for number, reply in enumerate(replies):
        with api(in_turn(reply)) as server:
            feed = Feed(tmp_path / str(number), server.url, auth=RestAuth(bearer=KEY))
            with pytest.raises(Unavailable) as caught:
                feed.step()
        assert unsecret(shown(feed, caught.value))


def test_without_its_secret_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORDERS_KEY")
    with api(in_turn(Reply())) as server:
        with pytest.raises(Unavailable, match="secret_missing: the variable ORDERS_KEY is not set"):
            Feed(tmp_path, server.url, auth=RestAuth(bearer=KEY)).step()
        assert server.requests == []


def test_a_secret_that_no_header_takes_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_KEY", "schlüssel")
    with pytest.raises(Unavailable, match="secret_missing") as caught:
        Feed(tmp_path, "http://127.0.0.1:1", auth=RestAuth(bearer=KEY)).step()
    assert "schl" not in str(caught.value)


@pytest.mark.parametrize("auth", [RestAuth(), RestAuth(bearer=KEY, api_key=ApiKey(key=KEY))])
def test_there_is_one_way_to_be_known(tmp_path: Path, auth: RestAuth) -> None:
    with pytest.raises(Misuse, match="exactly one"):
        Feed(tmp_path, "http://127.0.0.1:1", auth=auth)


class Tokens:
    """A server of tokens and of records for them."""

    def __init__(self, **answer: Any) -> None:
        self.answer = {"token_type": "Bearer", "expires_in": 3600} | answer
        self.given = 0
        self.valid = ""
        self.asked: list[Request] = []
        self.in_body = False  # takes no Basic header
        self.refuses = 0  # this many calls with a valid token

    def __call__(self, request: Request) -> Reply:
        if request.path == "/token":
            self.asked.append(request)
            if self.in_body and "authorization" in request.headers:
                return Reply(status=401)
            self.given += 1
            self.valid = f"token-{self.given}-{SECRET[:4]}x"
            return said({"access_token": self.valid} | self.answer)
        if self.refuses or request.headers.get("authorization") != f"Bearer {self.valid}":
            self.refuses -= bool(self.refuses)
            return Reply(status=401)
        return said([{"id": len(self.asked)}])


def oauth2(url: str, **more: Any) -> RestAuth:
    declared = ClientCredentials(
        token_url=f"{url}/token", client_id=Secret(variable="ORDERS_ID"), client_secret=KEY, **more
    )
    return RestAuth(oauth2=declared)


def test_a_token_is_asked_for_once_and_kept(tmp_path: Path) -> None:
    tokens = Tokens()
    with api(tokens) as server:
        feed = Feed(tmp_path, server.url, auth=oauth2(server.url, scope="orders.read"))
        for _ in range(3):
            feed.round()
    (asked,) = tokens.asked
    assert asked.method == "POST"
    assert parse_qs(asked.body.decode()) == {"grant_type": ["client_credentials"], "scope": ["orders.read"]}
    pair = base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()
    assert pair == "client%3A1:s3cr%2Ft%2Bv%26l+ue"
    assert unsecret(shown(feed))
    assert tokens.valid not in shown(feed)


def test_a_token_near_its_end_is_renewed(tmp_path: Path) -> None:
    tokens = Tokens(expires_in="0")
    with api(tokens) as server:
        feed = Feed(tmp_path, server.url, auth=oauth2(server.url))
        feed.round()
        feed.round()
    assert tokens.given == 2


def test_a_token_that_is_refused_is_renewed_once_in_a_call(tmp_path: Path) -> None:
    tokens = Tokens()
    with api(tokens) as server:
        feed = Feed(tmp_path, server.url, auth=oauth2(server.url))
        feed.round()
        tokens.valid = "revoked"
        feed.round()
        assert feed.ids() == [1, 2]
        tokens.refuses = 2
        with pytest.raises(Unavailable, match="not_authorized"):
            feed.step()
        assert tokens.given == 3


def test_a_server_that_wants_its_client_in_the_body_gets_it_there(tmp_path: Path) -> None:
    tokens = Tokens()
    tokens.in_body = True
    with api(tokens) as server:
        feed = Feed(tmp_path, server.url, auth=oauth2(server.url))
        feed.round()
        assert parse_qs(tokens.asked[1].body.decode())["client_secret"] == [SECRET]
        tokens.valid = "revoked"
        feed.round()
        assert len(tokens.asked) == 3  # it is known how this one wants it
    assert unsecret(shown(feed))


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(status=400), "not_authorized"),
        (Reply(status=403), "not_authorized"),
        (Reply(status=302, headers={"location": "http://x.example/"}), "not_authorized"),
        (Reply(status=429), "rate_limited"),
        (Reply(status=503), "source_down"),
        (Reply(b"<html>"), "not_json"),
        (said({"access_token": "t"}), "not_json"),
        (said({"access_token": "", "token_type": "bearer"}), "not_json"),
        (said({"access_token": "t", "token_type": "bearer", "expires_in": "soon"}), "not_json"),
        (said({"access_token": "t", "token_type": "mac"}), "not_authorized"),
        (said({"access_token": "tökén", "token_type": "bearer"}), "not_authorized"),
    ],
)
def test_a_token_that_is_not_given_is_told(tmp_path: Path, reply: Reply, code: str) -> None:
    with api(in_turn(reply)) as server:
        feed = Feed(tmp_path, server.url, auth=oauth2(server.url))
        with pytest.raises(Unavailable) as caught:
            feed.step()
        assert caught.value.code == code
        assert all(request.path == "/token" for request in server.requests)
    assert unsecret(shown(feed, caught.value))
