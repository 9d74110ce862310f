"""Before the first update: how fast the ranks add values up, and over which network interface."""

from __future__ import annotations

import os
import re
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist

from cosyflow.training.ranks import Ranks

MEGABYTES = 16
"""That are added up: enough to see a slow network, and done in a moment on a fast one."""
NCCL_LOG = "NCCL_DEBUG_FILE"
UNKNOWN = "an interface that is not known"
_NCCL_NETWORK = re.compile(r"NET/(?P<kind>\w+) : Using (?P<first>\[\d+\])?(?P<name>[^\s:<]+)")
_SIOCGIFADDR = 0x8915  # netdevice(7)


def preflight(ranks: Ranks, log: Callable[[str], None]) -> None:
    """Adds a tensor up over all ranks, and logs how long that took and which interface it went over."""
    if ranks.is_alone:
        return
    values = torch.ones(MEGABYTES << 18, device=ranks.device)  # float32
    dist.all_reduce(values[:1])  # connections are made by the first
    ranks.barrier()
    began = time.monotonic()
    dist.all_reduce(values)
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)
    seconds = time.monotonic() - began
    backend = dist.get_backend()
    used = ranks.gather(nccl_interface() if backend == "nccl" else gloo_interface())
    interfaces = ", ".join(dict.fromkeys(used))
    log(f"{backend} over {interfaces}: {ranks.world_size} ranks add up {MEGABYTES} MiB in {seconds:.3f} s")


def ask_nccl() -> None:
    """Has NCCL write down which network it takes, unless its messages go elsewhere already. Before it begins."""
    if "NCCL_DEBUG" not in os.environ and NCCL_LOG not in os.environ:
        os.environ["NCCL_DEBUG"], os.environ["NCCL_DEBUG_SUBSYS"] = "INFO", "INIT,NET"
        os.environ[NCCL_LOG] = str(Path(tempfile.gettempdir()) / f"cosyflow-nccl-{os.getpid()}.log")


def nccl_interface() -> str:
    """What NCCL wrote down that it takes, e.g. "IB mlx5_0" or "Socket eth0"."""
    with suppress(OSError, KeyError):
        return nccl_network(Path(os.environ[NCCL_LOG]).read_text(encoding="utf-8", errors="replace"))
    return UNKNOWN


def nccl_network(messages: str) -> str:
    """The network in NCCL's messages; processes of one machine may need none."""
    found = _NCCL_NETWORK.search(messages)
    return f"{found['kind']} {found['name']}" if found else UNKNOWN


def gloo_interface() -> str:
    """The interface that gloo takes: the one that is set, else the one that has the address of the host's name."""
    if named := os.environ.get("GLOO_SOCKET_IFNAME"):
        return named
    with suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
        for _, name in socket.if_nameindex():
            if _address_of(name) == address:
                return f"{name} ({address})"
        if address.startswith("127."):
            return f"lo ({address})"
    return UNKNOWN


def _address_of(interface: str) -> str:
    """The IPv4 address of an interface; "" where it has none. Linux only."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, suppress(OSError):
        request = struct.pack("256s", interface.encode()[:15])
        return socket.inet_ntoa(fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, request)[20:24])
    return ""
