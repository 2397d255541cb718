"""The files of monitoring/, as tests read them."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.documents import ROOT

RULES = ROOT / "monitoring" / "prometheus-rules.yml"
DASHBOARD = ROOT / "monitoring" / "grafana-dashboard.json"


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load(RULES.read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def expressions_of_dashboard() -> dict[str, str]:
    """What its panels and variables ask for, by where it stands, with Grafana's variables in it."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked_for = variable["query"]["query"]
            found[f"variable {variable['name']}"] = re.sub(r"^label_values\((.*), \w+\)$", r"\1", asked_for)
    return found


def filled(expression: str, receiver: str = ".*") -> str:
    """As Grafana fills it in."""
    values = {"$__rate_interval": "1m", "$__range": "1h", "$receiver": receiver, "$job": ".*", "$instance": ".*"}
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    return expression
