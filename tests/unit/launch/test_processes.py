"""What `gpus_per_node` means, on this machine and in a job."""

from __future__ import annotations

import pytest

from cosyflow.errors import RefusalError
from cosyflow.launch.local import run_locally
from cosyflow.launch.processes import processes
from cosyflow.launch.settings import JobSettings, devices_of


@pytest.mark.parametrize(
    ("gpus_per_node", "devices", "wanted"),
    [
        (-1, 0, 1),
        (-1, 1, 1),
        (-1, 8, 8),
        (0, 0, 1),
        (0, 8, 1),
        (1, 0, 1),
        (1, 8, 1),
        (2, 0, 2),
        (8, 8, 8),
    ],
)
def test_the_processes_of_a_machine(gpus_per_node: int, devices: int, wanted: int) -> None:
    assert processes(gpus_per_node, devices) == wanted


@pytest.mark.parametrize(
    ("gpus_per_node", "devices", "message"),
    [
        (2, 1, "2 GPUs are asked for, and this machine has 1; give 1 at most, or -1 for all"),
        (9, 8, "9 GPUs are asked for, and this machine has 8; give 8 at most, or -1 for all"),
        (-2, 8, "-2 is less than -1; give -1 or more"),
    ],
)
def test_what_a_machine_has_not_is_refused(gpus_per_node: int, devices: int, message: str) -> None:
    with pytest.raises(RefusalError) as refusal:
        processes(gpus_per_node, devices)
    assert refusal.value.lines == [f"error: gpus_per_node: {message}"]


@pytest.mark.parametrize(
    ("resources", "devices"),
    [
        ({}, 1),
        ({"limits": {"cpu": "8", "ephemeral-storage": "1Gi"}}, 1),
        ({"limits": {"cpu": "8", "nvidia.com/gpu": "4"}}, 4),
        ({"requests": {"amd.com/gpu": 2}}, 2),
        ({"limits": {"nvidia.com/gpu": "0"}}, 0),
    ],
)
def test_a_job_has_the_devices_of_its_settings(resources: dict[str, dict[str, str]], devices: int) -> None:
    assert devices_of(JobSettings(resources=resources)) == devices


@pytest.mark.medium
def test_processes_on_the_cpu_see_no_device(tmp_path, capfd, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for on_cpu, seen in ((False, "'0'"), (True, "''")):
        run_locally("tests.unit.launch.failing", ["devices"], 1, tmp_path / "train.log", on_cpu)
        assert f"devices {seen}" in capfd.readouterr().out
