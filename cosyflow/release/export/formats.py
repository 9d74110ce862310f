"""TorchScript and ONNX: writing a module to a file and loading the file again."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosyflow import storage
from cosyflow.release.export.comparison import Run, Tensors

OPSET = 18


def scripted(
    module: nn.Module, run: Callable[[Any, Tensors], Tensors], dtype: torch.dtype, keep: Sequence[str] = ()
) -> Callable[[Path], Run]:
    """A writer of a scripted and frozen module, with weights of a type.

    Args:
        module: it is not changed.
        run: calls the loaded module with inputs in the type of the weights.
        dtype: type of the weights.
        keep: methods besides `forward` that the file keeps.
    """

    def write(path: Path) -> Run:
        script = torch.jit.script(copy.deepcopy(module).eval().to(dtype))
        _save(torch.jit.freeze(script, preserved_attrs=list(keep)), path)
        loaded = torch.jit.load(str(path))
        return lambda inputs: run(loaded, tuple(_cast(tensor, dtype) for tensor in inputs))

    return write


def traced(module: nn.Module, example: Tensors) -> Callable[[Path], Run]:
    """A writer of a module that is traced with example inputs, and frozen."""

    def write(path: Path) -> Run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes that the tracer takes for constants are compared at other lengths
            trace = torch.jit.trace(module.eval(), example, check_trace=False)
        _save(torch.jit.freeze(trace), path)
        loaded = torch.jit.load(str(path))
        return lambda inputs: (loaded(*inputs),)

    return write


def _save(module: torch.jit.ScriptModule, path: Path) -> None:
    """Writes a file; PyTorch's own way to a path ends the process where the disk is full."""
    content = module.save_to_buffer()
    with storage.open_write(str(path)) as stream:
        stream.write(content)


def onnx(
    module: nn.Module,
    example: Tensors,
    inputs: Sequence[str],
    output: str,
    dynamic_axes: Mapping[str, Mapping[int, str]],
) -> Callable[[Path], Run]:
    """A writer of a module with one output as ONNX, run by ONNX Runtime on the CPU."""

    def write(path: Path) -> Run:
        import onnxruntime

        with _rms_norm_symbolic(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracing exporter's own deprecation, and constants that it folds
            torch.onnx.export(
                module.eval(),
                example,
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=[output],
                dynamic_axes={name: dict(axes) for name, axes in dynamic_axes.items()},
            )
        _fix_sizes(path, output, tuple(module(*example).shape), dynamic_axes.get(output, {}))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

        def run(tensors: Tensors) -> Tensors:
            feeds = dict(zip(inputs, (tensor.numpy() for tensor in tensors), strict=True))
            return (torch.from_numpy(session.run([output], feeds)[0]),)

        return run

    return write


def _fix_sizes(path: Path, output: str, shape: Sequence[int], dynamic: Mapping[int, str]) -> None:
    """Declares the sizes of an output that are not dynamic, where the exporter could not infer them."""
    from onnx import load_model, save_model

    model = load_model(path)
    (value,) = (each for each in model.graph.output if each.name == output)
    unknown = [axis for axis in range(len(shape)) if axis not in dynamic]
    sizes = value.type.tensor_type.shape.dim
    if any(sizes[axis].dim_value != shape[axis] for axis in unknown):
        for axis in unknown:
            sizes[axis].dim_value = shape[axis]
        save_model(model, path)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


@contextmanager
def _rms_norm_symbolic() -> Iterator[None]:
    """Lets the exporter write an RMS norm, which opset 18 does not have, in elementary operations."""

    def symbolic(graph: Any, hidden: Any, shape: Any, weight: Any, eps: Any) -> Any:
        value = torch.onnx.symbolic_helper._maybe_get_const(eps, "f")
        epsilon = graph.op("Constant", value_t=torch.tensor(value if isinstance(value, float) else 1e-6))
        last = graph.op("Constant", value_t=torch.tensor([-1]))
        mean = graph.op("ReduceMean", graph.op("Mul", hidden, hidden), last, keepdims_i=1)
        scale = graph.op("Sqrt", graph.op("Add", mean, epsilon))
        return graph.op("Mul", graph.op("Div", hidden, scale), weight)

    torch.onnx.utils.register_custom_op_symbolic("aten::rms_norm", symbolic, OPSET)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        yield
    finally:
        exporter.setLevel(level)
        torch.onnx.utils.unregister_custom_op_symbolic("aten::rms_norm", OPSET)
