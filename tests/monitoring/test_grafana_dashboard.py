from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from mainstay.monitoring.grafana_dashboard import MAX_UID, dashboard
from mainstay.monitoring.grafana_panels import COLUMNS
from monitoring.levels import subject

# Options of panels that are younger than the types of Grafana 10.1 which are published as a Python package.
YOUNGER = {"wideLayout", "showPercentChange", "percentChangeColorMode"}


def made(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dashboard(subject(**changes), "here")))
    return found


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """What is not the same, or not there, after others' types have read a document and written it again."""
    if isinstance(before, dict) and isinstance(after, dict):
        missing = [f"{path}.{key}" for key in before if key not in after and key not in YOUNGER]
        return missing + [
            each for key in before if key in after for each in lost(before[key], after[key], f"{path}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return [each for number, (one, other) in enumerate(pairs) for each in lost(one, other, f"{path}[{number}]")]
    return [] if before == after else [f"{path}: {before!r} became {after!r}"]


def read_by_grafana(document: dict[str, Any]) -> Any:
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(document)))


def test_grafanas_own_types_know_every_name_and_value_of_it() -> None:
    document = made()
    assert lost(document, read_by_grafana(document)) == []


def test_a_name_that_grafana_does_not_know_is_noticed() -> None:
    document = made()
    document["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"
    document["panels"][1]["options"]["colourMode"] = "value"
    places = lost(document, read_by_grafana(document))
    assert places == [".panels[1].fieldConfig.defaults.units", ".panels[1].options.colourMode"]


def test_panels_stand_in_rows_without_lying_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in made()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in made()["panels"]}) == len(made()["panels"])


def test_every_panel_says_what_it_shows_and_asks_the_chosen_data_source() -> None:
    document = made()
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    assert len(panels) > 25
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    assert [variable["name"] for variable in document["templating"]["list"]] == ["datasource"]


def test_rows_follow_what_is_declared() -> None:
    rows = [panel["title"] for panel in made()["panels"] if panel["type"] == "row"]
    assert rows == [
        "Now",
        "Decisions and outcomes",
        "Latency",
        "Service levels",
        "Canary beside production",
        "Shadow",
        "Intake",
        "Ledger and tables",
    ]
    bare = [
        panel["title"] for panel in made(service_levels={}, cost={}, sources=[])["panels"] if panel["type"] == "row"
    ]
    assert set(rows) - set(bare) == {"Service levels", "Intake"}


def test_two_capabilities_have_two_dashboards_however_long_their_names() -> None:
    names = ["a" * 50 + "x", "a" * 50 + "y", "desk"]
    uids = {made(name=name)["uid"] for name in names}
    assert len(uids) == 3
    assert all(len(uid) <= MAX_UID for uid in uids)
