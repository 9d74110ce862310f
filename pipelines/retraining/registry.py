"""What the gate said of the versions that a run registered, asked by HTTP: MLflow's client is not in the image base."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from cosyflow.credentials import WEB
from cosyflow.credentials.web import open_url
from cosyflow.mlflow_server import authorization
from cosyflow.progress import say

CHAMPION, GATE_TAG = "champion", "gate"
"""The alias that the gate moves, and the tag of a version with what it said in a word."""
SECONDS = 10.0


@dataclass(frozen=True)
class Verdict:
    """Of a version.

    Attributes:
        version: "NAME version N".
        outcome: the gate's word; "" where it has not been asked.
    """

    version: str
    is_champion: bool
    outcome: str


def verdicts(address: str, registered: Sequence[str]) -> tuple[Verdict, ...] | None:
    """The verdicts on versions; None where no server of a registry answers.

    Args:
        address: of the tracking server; one that is not on the web has no verdicts here.
        registered: "NAME version N" each.
    """
    if address.partition("://")[0] not in WEB:
        return None
    try:
        return tuple(_verdict(address, version) for version in registered)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        say("reconcile", f"{address}: the registry cannot be asked for the gate's verdicts ({error})")
        return None


def _verdict(address: str, version: str) -> Verdict:
    name, _, number = version.rpartition(" version ")
    query = urlencode({"name": name, "version": number})
    url = f"{address.rstrip('/')}/api/2.0/mlflow/model-versions/get?{query}"
    with open_url(url, SECONDS, login=authorization(address)) as answer:
        found = json.load(answer)["model_version"]
    tags = {tag["key"]: tag["value"] for tag in found.get("tags", ())}
    return Verdict(version, CHAMPION in found.get("aliases", ()), str(tags.get(GATE_TAG, "")))
