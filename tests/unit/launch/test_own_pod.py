"""A step labels its own pod; that it could not is told, and never a failure. The real thing: tests/cluster/kfp."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cosyflow.launch import own_pod


def test_outside_of_a_pod_nothing_is_done_and_kubernetes_is_not_loaded() -> None:
    code = (
        "import sys; from cosyflow.launch.own_pod import label_own_pod;"
        "assert label_own_pod('cosyflow.dev/subset', 'dev') == ''; assert 'kubernetes' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_server_that_refuses_or_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    namespace = tmp_path / "namespace"
    namespace.write_text("team")
    monkeypatch.setattr(own_pod, "NAMESPACE_FILE", namespace)
    monkeypatch.setenv("KFP_POD_NAME", "run-1-prepare")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    told = own_pod.label_own_pod("cosyflow.dev/subset", "dev-clean")
    assert told.startswith("the label cosyflow.dev/subset could not be given to run-1-prepare: ")
    assert told.endswith("the account needs the verb patch on pods")
