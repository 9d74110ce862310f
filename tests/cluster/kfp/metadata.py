"""ML Metadata, where Kubeflow Pipelines keeps the facts and metrics of artifacts, asked by gRPC."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SERVICE = "metadata-grpc-service"
PORT = 8080
METHOD = "/ml_metadata.MetadataStoreService/GetArtifactsByURI"
URIS_FIELD = b"\x12"
"""Field 2 of GetArtifactsByURIRequest, of the type string."""
DOUBLE = rb"\x12\x09\x11"
"""Field 2 of a map's entry, of nine bytes: field 2 of Value, of the type double."""
ANSWER_SECONDS = 30


class Metadata:
    """Answers of the store, which are kept as it encodes them: its message types are in no package of ours."""

    def __init__(self, channel: Any) -> None:
        self._ask = channel.unary_unary(METHOD)

    def artifact(self, uri: str) -> bytes:
        """The encoded artifacts of a URI; empty when there is none."""
        name = uri.encode()
        answer: bytes = self._ask(URIS_FIELD + _length(len(name)) + name, timeout=ANSWER_SECONDS, wait_for_ready=True)
        return answer


def metric(artifact: bytes, name: str) -> float:
    """A number of an encoded artifact: an entry of a map, whose key is followed by a value of the type double."""
    found = re.search(re.escape(name.encode()) + DOUBLE + b"(.{8})", artifact, re.DOTALL)
    assert found, f"no {name} in {artifact!r}"
    return float(struct.unpack("<d", found[1])[0])


@contextmanager
def reach_metadata(namespace: str) -> Iterator[Metadata]:
    """Forwards a port of this machine to the store for the `with` body."""
    import grpc

    command = ["kubectl", "--namespace", namespace, "port-forward", f"service/{SERVICE}", f":{PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert found, f"no way to {SERVICE}"
            with grpc.insecure_channel(f"127.0.0.1:{found[1]}") as channel:
                yield Metadata(channel)
        finally:
            forward.terminate()


def _length(number: int) -> bytes:
    """A number as protobuf has it: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
