"""Secrets of sources of every kind that failed and that worked: they are in nothing that is kept or told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from intake.api import Reply, Request, api, said
from intake.databases import postgres_server
from intake.workspaces import NAME, flights, make_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

SECRETS = {
    "BEARER": "zq-bearer-7f31",
    "API_KEY": "zq-key-99 a/b",  # is written otherwise in an address
    "CLIENT": "zq-client-0a1b",
    "CLIENT_SECRET": "zq-client-secret-5c",
    "TOKEN": "zq-token-that-was-given-2d",
}
PASSWORDS = ("zq-password-right", "zq-password/wrong@x")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of a database that a user with a password may read."""
    with postgres_server() as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE flights (flight bigint, carrier text, delay int)"))
            connection.execute(sa.text("INSERT INTO flights VALUES (1, 'AA', 5), (2, 'AA', 5)"))
            connection.execute(sa.text(f"CREATE USER reader PASSWORD '{PASSWORDS[0]}'"))
            connection.execute(sa.text("GRANT SELECT ON flights TO reader"))
        engine.dispose()
        yield url


def echo(request: Request) -> Reply:
    """What was asked, as an API that says too much would: in the body, as HTML, where the status is asked for."""
    told = json.dumps([request.query, request.headers, request.body.decode()]).encode()
    if request.path == "/token":
        return said({"access_token": SECRETS["TOKEN"], "token_type": "bearer", "expires_in": 3600})
    if request.path == "/works":
        return said(flights(1, 3))
    if request.path == "/moved":
        return Reply(status=302, headers={"location": f"http://127.0.0.1:1/?{urlencode(request.query)}"})
    status = int(request.path.strip("/") or 200)
    return Reply(b"<html>" + told, status=status, headers={"content-type": "text/html", "x-told": told.decode()})


def rest(name: str, url: str, auth: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "rest": {"url": url, "auth": auth, "retries": 0, "timeout_seconds": 2}, "key": ["flight"]}


def sql(name: str, variable: str) -> dict[str, Any]:
    found = {"url": {"variable": variable}, "table": "flights", "timeout_seconds": 3}
    return {"name": name, "sql": found, "cursor": "flight", "key": ["flight"]}


def sources(url: str) -> Iterator[dict[str, Any]]:
    ways: dict[str, dict[str, Any]] = {
        "bearer": {"bearer": {"variable": "BEARER"}},
        "header": {"api_key": {"key": {"variable": "API_KEY"}}},
        "query": {"api_key": {"key": {"variable": "API_KEY"}, "name": "key", "place": "query"}},
        "oauth2": {
            "oauth2": {
                "token_url": f"{url}/token",
                "client_id": {"variable": "CLIENT"},
                "client_secret": {"variable": "CLIENT_SECRET"},
            }
        },
    }
    for way, auth in ways.items():
        for path in ("works", "200", "401", "404", "500", "moved"):
            yield rest(f"{way}-{path}", f"{url}/{path}", auth)
        yield rest(f"{way}-down", "http://127.0.0.1:1/down", auth)
    yield from (sql(f"sql-{name}", f"SQL_{name.upper()}") for name in ("works", "refused", "down", "nonsense"))


def command(workspace: Workspace, environment: dict[str, str], *words: str) -> bytes:
    """What a command told, on both of its outputs."""
    called = [sys.executable, "-m", "mainstay.cli.main", *words, "--workspace", str(workspace.root)]
    return subprocess.run(
        called, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    ).stdout


def test_no_secret_is_kept_or_told_whatever_a_source_does(database: str, tmp_path: Path) -> None:
    right = sa.make_url(database).set(username="reader", password=PASSWORDS[0])
    urls = {
        "SQL_WORKS": right,
        "SQL_REFUSED": right.set(username="nobody", password=PASSWORDS[1]),
        "SQL_DOWN": sa.make_url(f"postgresql+psycopg://reader:{PASSWORDS[0]}@127.0.0.1:1/none"),
    }
    environment = SECRETS | {name: url.render_as_string(hide_password=False) for name, url in urls.items()}
    environment["SQL_NONSENSE"] = f"no url at all: {PASSWORDS[1]}"
    with api(echo) as server:
        workspace = make_workspace(tmp_path / "w", *sources(server.url))
        told = command(workspace, environment, "intake", "run", NAME)
        told += command(workspace, environment, "intake", "run", NAME, "--json")
        carried = json.dumps([[each.query, each.headers, each.body.decode()] for each in server.requests])
    told += command(workspace, environment, "intake", "status")
    told += command(workspace, environment, "intake", "status", NAME, "--json")
    told += command(workspace, environment, "control", "--help")
    assert all(each in carried for each in (SECRETS["BEARER"], SECRETS["API_KEY"], SECRETS["TOKEN"])), "they were used"
    assert told.count(b"accepted") >= 5, told.decode()  # of each way, and of the database: they did work
    kept = {path: path.read_bytes() for path in (tmp_path / "w").rglob("*") if path.is_file()}
    assert any(path.name == "events.jsonl" for path in kept)
    for secret in (*SECRETS.values(), *PASSWORDS):
        for text in {secret, urlencode({"": secret})[1:], json.dumps(secret)[1:-1]}:
            assert text.encode() not in told, text
            assert not [path for path, content in kept.items() if text.encode() in content], text
