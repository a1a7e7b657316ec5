"""The rule file of a capability: recording rules and alerts, as Prometheus reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.contract.writing import write_yaml
from mainstay.monitoring.prometheus_alerts import lake_alerts, service_alerts, shadow_alerts, source_alerts
from mainstay.monitoring.prometheus_levels import level_alerts, level_rules

if TYPE_CHECKING:
    from mainstay.monitoring.prometheus_types import Rule, Subject


def rule_groups(subject: Subject) -> dict[str, list[Rule]]:
    """The rules of a capability by the name of their group; a group without rules is left out."""
    name = subject.capability.name
    groups = {
        f"mainstay-{name}-levels": [*level_rules(subject), *level_alerts(subject)],
        f"mainstay-{name}-service": [*service_alerts(subject), *shadow_alerts(subject)],
        f"mainstay-{name}-data": [*lake_alerts(subject), *source_alerts(subject)],
    }
    return {group: rules for group, rules in groups.items() if rules}


def rule_file(subject: Subject, made_from: str) -> bytes:
    """The file in YAML. `made_from` names what was exported, for its first line."""
    groups: list[dict[str, Any]] = [
        {"name": group, "rules": msgspec.to_builtins(rules)} for group, rules in rule_groups(subject).items()
    ]
    name = subject.capability.name
    top = f"Made by `mainstay export prometheus {name}` from {made_from}. Make it again instead of changing it."
    return write_yaml({"groups": groups}, top=top)
