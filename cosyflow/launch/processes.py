"""How many processes of a training a machine runs, and on how many of its devices."""

from __future__ import annotations

import ctypes

from cosyflow.errors import Problem, RefusalError


def processes(gpus_per_node: int, devices: int) -> int:
    """The processes of one machine.

    Args:
        gpus_per_node: as it is asked for: -1 is one for each device, or one without a device; 0 is one on the CPU; a
            number on a machine without devices is that number on the CPU.
        devices: CUDA devices of the machine.

    Raises:
        RefusalError: the machine has devices, and fewer than asked for.
    """
    if gpus_per_node < -1:
        raise RefusalError([Problem("gpus_per_node", f"{gpus_per_node} is less than -1; give -1 or more")])
    if 0 < devices < gpus_per_node:
        raise RefusalError(
            [
                Problem(
                    "gpus_per_node",
                    f"{gpus_per_node} GPUs are asked for, and this machine has {devices}; give {devices} at most, or -1"
                    " for all",
                )
            ]
        )
    return max(1, devices if gpus_per_node == -1 else gpus_per_node)


def devices_here() -> int:
    """The CUDA devices that this process can see. It does not open them: the training's processes do.

    None where PyTorch is missing: there a run is only planned. Without NVIDIA's driver there are none either, which is
    seen without the seconds that the import of PyTorch takes.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
        import torch
    except (OSError, ModuleNotFoundError):
        return 0
    return torch.cuda.device_count()
