"""The demo's third act: flights that cannot be, made of one of April, and what became of each."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.cli.common import API_KEY_VARIABLE
from mainstay.errors import Failed

if TYPE_CHECKING:
    from mainstay.cli.demo_story import Scene

STRANGE_SECONDS = 60.0


def send_strange(scene: Scene) -> None:
    """Send them from another process, and tell what came back."""
    story = scene.story
    story.title("April's strangest flights")
    command = [sys.executable, str(scene.example / "strange.py"), "--url", scene.url]
    with story.working("reading April"):
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=STRANGE_SECONDS,
            env={**os.environ, API_KEY_VARIABLE: scene.token},
        )
    if done.returncode != 0:
        raise Failed(f"strange.py failed:\n{done.stderr.strip()[-2000:]}")
    told: list[dict[str, Any]] = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    story.facts["strange"] = told
    scene.acknowledged.extend(each["decision_id"] for each in told)
    story.say(f"the flight {told[0]['flight']}, changed:")
    for each in told:
        story.say(f"  {each['what']:<38}  {each['outcome']:<8}  {_output(each['output'])}".rstrip())
        if each["changed"]:
            story.say(f"    {_changed(each['changed'])}")
        for reason in each["reasons"]:
            story.say(f"    {reason['code']}: {reason['detail']}")
    for each in told:
        _check(scene, each)


def _check(scene: Scene, told: dict[str, Any]) -> None:
    expected = told["expected"]
    first = told["reasons"][0] if told["reasons"] else {"code": "", "detail": ""}
    same = (told["outcome"], first["code"]) == (expected["outcome"], expected["code"])
    named = expected["names"] in first["detail"]
    what = f"{told['what']}: {expected['outcome']} {expected['code']} {expected['names']}"
    scene.story.expect(same and named, what.rstrip())


def _changed(changed: dict[str, Any]) -> str:
    said = (f"{name} {'absent' if value is None else value}" for name, value in changed.items())
    return ", ".join(said)


def _output(output: dict[str, Any] | None) -> str:
    if output is None:
        return "no answer"
    return f"{'late' if output['late'] else 'on time'}, {output['probability']:.2f}"
