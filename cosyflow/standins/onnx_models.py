"""Small ONNX models with the signatures of CAM++ and of the speech tokenizers, computing something meaningful.

Both are plain signal statistics with random but fixed projections: equal sounds give equal outputs, different sounds
different ones, and nothing is learnt. Each carries STAND_IN_KEY in its metadata.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from cosyflow.pretrained import STAND_IN_KEY

OPSET = 17
IR_VERSION = 8

SPEAKER_DIM = 192
FBANK_BINS = 80
LOG_MEL_BINS = 128

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Quantiser:
    """How a stand-in tokenizer cuts the space of sounds into `levels ** digits` codes.

    Attributes:
        stride: frames (10 ms) a token.
        window: frames that a token sees, Hann-weighted, so that neighbouring tokens are often equal.
        levels: values of a digit; the code is written in this base.
        digits: projections that are quantised.
    """

    stride: int
    window: int
    levels: int
    digits: int

    @property
    def codebook_size(self) -> int:
        return int(self.levels**self.digits)


QUANTISERS = {
    "speech_tokenizer_v1.onnx": Quantiser(stride=2, window=12, levels=4, digits=6),
    "speech_tokenizer_v2.onnx": Quantiser(stride=4, window=20, levels=3, digits=8),
    "speech_tokenizer_v3.onnx": Quantiser(stride=4, window=20, levels=3, digits=8),
}

# mean and spread of the first cepstra of Whisper's log-mel, rounded, over read speech (LibriSpeech) and eSpeak NG
CEPSTRUM_MEAN = np.array([0.0, 0.125, 0.017, 0.055, -0.018, 0.0, -0.017, -0.018])
CEPSTRUM_SPREAD = np.array([0.22, 0.095, 0.05, 0.06, 0.045, 0.036, 0.04, 0.035])
OUTER_THRESHOLD = 0.45  # of the standardised projections: 0.5 leaves many codes unused, 0.3 nears a uniform use of all


def speaker_model(seed: int) -> onnx.ModelProto:
    """A model with CAM++'s signature: fbank [B, T, 80] without its mean -> embedding [B, 192].

    The embedding is a random projection of three statistics of each bin over time: the logarithm of its variance, the
    mean absolute step from frame to frame, and its skewness.
    """
    random = np.random.default_rng([seed, 1])
    projection = random.standard_normal((3 * FBANK_BINS, SPEAKER_DIM)) / math.sqrt(3 * FBANK_BINS)
    constants: dict[str, ArrayLike] = {
        "projection": projection.astype(np.float32),
        "floor": np.float32(1e-6),
        "one_frame_before": np.array([0, 1, 0, 0, 0, 0], np.int64),
        "first": np.array([0], np.int64),
        "last": np.array([-1], np.int64),
        "time": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Mul", ["input", "input"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["variance_over_time"], axes=[1], keepdims=0),
        helper.make_node("Add", ["variance_over_time", "floor"], ["variance"]),
        helper.make_node("Log", ["variance"], ["log_variance"]),
        helper.make_node("Pad", ["input", "one_frame_before"], ["padded"], mode="edge"),
        helper.make_node("Slice", ["padded", "first", "last", "time"], ["previous"]),
        helper.make_node("Sub", ["input", "previous"], ["step"]),
        helper.make_node("Abs", ["step"], ["step_size"]),
        helper.make_node("ReduceMean", ["step_size"], ["mean_step"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["square", "input"], ["cube"]),
        helper.make_node("ReduceMean", ["cube"], ["third_moment"], axes=[1], keepdims=0),
        helper.make_node("Sqrt", ["variance"], ["deviation"]),
        helper.make_node("Mul", ["variance", "deviation"], ["deviation_cubed"]),
        helper.make_node("Div", ["third_moment", "deviation_cubed"], ["skewness"]),
        helper.make_node("Concat", ["log_variance", "mean_step", "skewness"], ["statistics"], axis=1),
        helper.make_node("MatMul", ["statistics", "projection"], ["output"]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["B", "T", FBANK_BINS])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", SPEAKER_DIM])]
    return _model("campplus", nodes, inputs, outputs, constants, seed)


def tokenizer_model(quantiser: Quantiser, seed: int) -> onnx.ModelProto:
    """A model with a speech tokenizer's signature: log-mel [1, 128, T], length int32 [1] -> ids int32 [1, T // stride].

    One convolution smooths over the window, takes cepstra and mixes them by a random rotation; comparing the results
    with fixed thresholds gives the digits of the code.
    """
    kernel, bias = _cepstral_projection(quantiser, seed)
    lead = (quantiser.window - quantiser.stride) // 2
    constants: dict[str, ArrayLike] = {
        "kernel": kernel,
        "bias": bias,
        "padding": np.array([0, 0, lead, 0, 0, quantiser.window], np.int64),
        "first": np.array([0], np.int64),
        "time": np.array([2], np.int64),
        "stride": np.array([quantiser.stride], np.int64),
        "thresholds": np.array(_thresholds(quantiser.levels), np.float32),
        "place_values": quantiser.levels ** np.arange(quantiser.digits, dtype=np.int32)[None, :, None],
        "new_axis": np.array([3], np.int64),
        "digit_axis": np.array([1], np.int64),
        "threshold_axis": np.array([3], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["feats_length"], ["length"], to=TensorProto.INT64),
        helper.make_node("Slice", ["feats", "first", "length", "time"], ["frames"]),
        helper.make_node("Pad", ["frames", "padding"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "kernel", "bias"], ["all_positions"], strides=[quantiser.stride]),
        helper.make_node("Div", ["length", "stride"], ["num_tokens"]),
        helper.make_node("Slice", ["all_positions", "first", "num_tokens", "time"], ["positions"]),
        helper.make_node("Unsqueeze", ["positions", "new_axis"], ["position"]),
        helper.make_node("Greater", ["position", "thresholds"], ["above"]),  # [1, digits, tokens, levels - 1]
        helper.make_node("Cast", ["above"], ["steps"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["steps", "threshold_axis"], ["digits"], keepdims=0),
        helper.make_node("Mul", ["digits", "place_values"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "digit_axis"], ["indices"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, LOG_MEL_BINS, "T"]),
        helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
    ]
    outputs = [helper.make_tensor_value_info("indices", TensorProto.INT32, [1, "N"])]
    return _model("speech_tokenizer", nodes, inputs, outputs, constants, seed)


def write_onnx_models(directory: Path, seed: int) -> list[str]:
    """Writes `campplus.onnx` and the speech tokenizers into a folder. Returns their names."""
    models = {"campplus.onnx": speaker_model(seed)}
    models |= {name: tokenizer_model(quantiser, seed) for name, quantiser in QUANTISERS.items()}
    for name, model in models.items():
        temporary = directory / f".{name}.part"
        onnx.save(model, temporary)
        temporary.replace(directory / name)
    return list(models)


def _cepstral_projection(quantiser: Quantiser, seed: int) -> tuple[Floats, Floats]:
    """Kernel [digits, 128, window] and bias [digits] that take log-mel to standardised, rotated cepstra."""
    count = len(CEPSTRUM_MEAN)
    orders, bins = np.arange(count)[:, None], np.arange(LOG_MEL_BINS)[None, :]
    cepstra = np.cos(math.pi * orders * (bins + 0.5) / LOG_MEL_BINS) / LOG_MEL_BINS  # DCT-II: [count, 128]
    random = np.random.default_rng([seed, 2])
    rotation = np.linalg.qr(random.standard_normal((count, count)))[0][: quantiser.digits]  # [digits, count]
    mixing = rotation / CEPSTRUM_SPREAD
    smoothing = np.hanning(quantiser.window + 2)[1:-1]
    kernel = (mixing @ cepstra)[:, :, None] * (smoothing / smoothing.sum())
    return kernel.astype(np.float32), (-mixing @ CEPSTRUM_MEAN).astype(np.float32)


def _thresholds(levels: int) -> list[float]:
    """Evenly spaced from -OUTER_THRESHOLD to OUTER_THRESHOLD, one fewer than there are levels."""
    return [float(value) for value in np.linspace(-OUTER_THRESHOLD, OUTER_THRESHOLD, levels - 1)]


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, ArrayLike],
    seed: int,
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, f"stand-in for {name}", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "cosyflow stand-ins"
    helper.set_model_props(model, {STAND_IN_KEY: f"seed {seed}"})
    onnx.checker.check_model(model, full_check=True)
    return model
