"""What comes into force while something else is slow: a model that starts, a body that dribbles, a disk."""

from __future__ import annotations

import http.client
import json
import os
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

import chaos
import tiny
from mainstay.authority.keys import create_key, revoke_key
from mainstay.cli.common import signing_key
from mainstay.cli.versions import record_promotion, record_registration

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.workspace import Workspace

pytestmark = [pytest.mark.acceptance, pytest.mark.alone]

GOOD = {"a": 0.5, "b": 0.25}
START_SECONDS = 3.5  # of a model that is slow to start
NOTICED_SECONDS = 1.0  # so long after its publication a release is being started
LATE_SECONDS = 0.04  # of this machine, when it is busy
BENCH = Path(__file__).resolve().parents[2] / "bench"


def until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def release_slow_starter(workspace: Workspace) -> str:
    """Put a version into production whose model takes START_SECONDS to start; the version."""
    folder = chaos.write_folder(workspace.capabilities / tiny.NAME)
    code = folder / "answer.py"
    code.write_text(f"import time\n\ntime.sleep({START_SECONDS})\n{code.read_text()}")
    version = record_registration(workspace, folder, None).version
    record_promotion(workspace, tiny.NAME, version, "slow to start")
    return version


def decided_by(up: tiny.Up, name: str = tiny.NAME) -> Any:
    """The release that decides now; None where there is none."""
    url = up.decisions_url.replace(tiny.NAME, name)
    return httpx.post(url, json={"input": GOOD}, headers=up.headers).json().get("release")


def test_neither_a_revoked_key_nor_another_capability_waits_for_a_model_to_start(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    key = signing_key(workspace)
    made, other = create_key(workspace.access, key, name="other", capabilities=[tiny.NAME], verbs=["decide"])
    calm = tiny.write_folder(workspace.capabilities / "calm", name="calm")
    calm_version = record_registration(workspace, calm, None).version
    with tiny.up(workspace, token) as up:
        release_slow_starter(workspace)
        time.sleep(NOTICED_SECONDS)
        revoke_key(workspace.access, key, made.id)
        record_promotion(workspace, "calm", calm_version, "beside the other")

        def is_refused() -> bool:
            headers = {"authorization": f"Bearer {other}"}
            return httpx.post(up.decisions_url, json={"input": GOOD}, headers=headers).status_code == 401

        assert until(is_refused, 2)
        assert until(lambda: decided_by(up, "calm") == 1, 2)
        assert decided_by(up) == 1, "the release before it serves until the model is there"
        assert until(lambda: decided_by(up) == 2, 10)


def test_a_release_whose_model_still_starts_gives_way_to_the_next(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with tiny.up(workspace, token) as up:
        release_slow_starter(workspace)
        time.sleep(NOTICED_SECONDS)
        tiny.release(workspace, graph=tiny.probability_graph(poisonous=True))
        assert until(lambda: decided_by(up) == 3, 2)
        time.sleep(START_SECONDS)
        assert decided_by(up) == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/capabilities/tiny/decisions", {"input": GOOD}),
        ("/v1/capabilities/tiny/decisions/batch", {"inputs": [{"input": GOOD}]}),
        (
            "/v2/models/tiny/infer",
            {"inputs": [{"name": name, "shape": [1], "datatype": "FP64", "data": [0.5]} for name in ("a", "b")]},
        ),
    ],
)
def test_a_call_whose_release_is_replaced_while_its_body_comes_is_answered_by_the_next(
    tmp_path: Path, path: str, body: Any
) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    content = json.dumps(body).encode()
    with (
        tiny.up(workspace, token) as up,
        closing(http.client.HTTPConnection(urlsplit(up.url).netloc, timeout=20)) as connection,
    ):
        connection.putrequest("POST", path)
        for name, value in {**up.headers, "content-length": str(len(content))}.items():
            connection.putheader(name, value)
        connection.endheaders(content[:5])
        time.sleep(0.2)  # the call has been admitted, and waits for its body
        version = tiny.release(workspace, graph=tiny.probability_graph(poisonous=True))
        assert until(lambda: decided_by(up) == 2, 5)
        connection.send(content[5:])
        answer = connection.getresponse()
        assert (answer.status, version in answer.read().decode()) == (200, True)
        assert decided_by(up) == 2
        assert "Traceback" not in (workspace.run / "up.log").read_text()


@pytest.fixture
def slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is started from now on finds its disk slow while the file of this path exists."""
    slow = tmp_path / "slow"
    monkeypatch.setenv("FAULTS_SLOW_DISK", str(slow))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(BENCH / "slow_disk"), os.environ.get("PYTHONPATH", "")]))
    return slow


def test_on_a_slow_disk_a_decision_is_recorded_or_refused_in_time(tmp_path: Path, slow_disk: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with tiny.up(workspace, token) as up, httpx.Client(headers=up.headers) as client:
        client.post(up.decisions_url, json={"input": GOOD})
        slow_disk.touch()
        took = []
        for _ in range(20):
            begun = time.monotonic()
            answer = client.post(up.decisions_url, json={"input": GOOD, "deadline_ms": 150})
            took.append(time.monotonic() - begun)
            assert (answer.status_code, answer.headers.get("retry-after")) in {(200, None), (503, "1")}
        slow_disk.unlink()
        assert sorted(took)[-2] < 0.15 + 0.05 + LATE_SECONDS


def test_a_slow_disk_does_not_hold_up_what_needs_none(tmp_path: Path, slow_disk: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with tiny.up(workspace, token) as up, httpx.Client(headers=up.headers) as client:
        slow_disk.touch()
        took = []
        end = time.monotonic() + 5  # each second the worker writes its counts
        while time.monotonic() < end:
            begun = time.monotonic()
            assert client.get(f"{up.url}/health/live").status_code == 200
            took.append(time.monotonic() - begun)
            time.sleep(0.01)
        slow_disk.unlink()
        assert sum(each > LATE_SECONDS for each in took) < 3
