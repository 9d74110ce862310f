"""Which device ONNX Runtime computes on; and where it is to be CUDA and is not, why."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from cosyflow.errors import CosyFlowError

AUTO, CPU, CUDA = DEVICES = ("auto", "cpu", "cuda")
VARIABLE = "COSYFLOW_DEVICE"
"""What "auto" means in this environment; a pod that asks for a GPU has it."""
PROVIDER = "CUDAExecutionProvider"
LIBRARIES = ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")


def asked_for(device: str) -> str:
    """The device that is asked for: one of DEVICES, and for "auto" what the environment says.

    Raises:
        CosyFlowError: it is no device.
    """
    chosen = (os.environ.get(VARIABLE) or AUTO) if device == AUTO else device
    if chosen not in DEVICES:
        raise CosyFlowError(f"{VARIABLE}: {chosen} is no device; give one of {', '.join(DEVICES)}")
    return chosen


def why_no_cuda() -> str:
    """Why no model can compute on a CUDA device here; "" where one should be able to."""
    import onnxruntime
    import torch

    if PROVIDER not in onnxruntime.get_available_providers():
        return f"onnxruntime {onnxruntime.__version__} has no CUDA provider; onnxruntime-gpu has one"
    if torch.cuda.is_available():
        return ""
    try:
        torch.cuda.current_device()
    except (RuntimeError, AssertionError) as error:  # no driver, no device, a build without CUDA
        return str(error).partition(". ")[0]
    return "PyTorch sees no CUDA device"


def why_not_loaded() -> str:
    """Why ONNX Runtime left its CUDA provider out although there is a device: the library that could not be loaded."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    for name in LIBRARIES:
        try:
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            return str(error)
    return "ONNX Runtime's CUDA provider did not start on it; its log above may say why"
