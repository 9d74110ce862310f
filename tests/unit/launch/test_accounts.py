"""Whose token the launcher shows to the API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.launch import client
from cosyflow.launch.client import in_a_pod
from cosyflow.launch.settings import LAUNCHER_FOLDER


def test_the_folder_is_where_the_task_has_it() -> None:
    assert str(client.LAUNCHER_ACCOUNT) == LAUNCHER_FOLDER


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pod's variables, and the folders of two accounts, which are empty."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    for name in ("LAUNCHER_ACCOUNT", "OWN_ACCOUNT"):
        monkeypatch.setattr(client, name, tmp_path / name)
        (tmp_path / name).mkdir()
    return tmp_path


def give(folder: Path, token: str) -> None:
    for name, text in {"token": token, "ca.crt": "certificate", "namespace": f"space-of-{token}\n"}.items():
        (folder / name).write_text(text)


def connected() -> tuple[str, str]:
    api, namespace = client._connect()
    return api.configuration.get_api_key_with_prefix("authorization"), namespace


def test_the_launchers_token_goes_before_the_pods_own(pod: Path) -> None:
    give(pod / "OWN_ACCOUNT", "own")
    assert connected() == ("bearer own", "space-of-own")
    give(pod / "LAUNCHER_ACCOUNT", "launcher")
    assert connected() == ("bearer launcher", "space-of-launcher")


def test_either_token_makes_a_pod_that_may_talk_to_its_cluster(pod: Path) -> None:
    assert not in_a_pod()
    give(pod / "LAUNCHER_ACCOUNT", "launcher")
    assert in_a_pod()
