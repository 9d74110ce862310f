"""The operator that DeepSpeed compiles when it first trains without a GPU: loaded, and built before if need be."""

from __future__ import annotations

import fcntl
import importlib.machinery
import importlib.util
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from cosyflow.errors import MachineError
from cosyflow.training.ranks import Ranks

FOLDER_VARIABLE = "TORCH_EXTENSIONS_DIR"
TOOLS = ("g++", "ninja")
OPERATOR = "deepspeed_shm_comm"


def prepare_operators(ranks: Ranks) -> None:
    """Loads the operator of collectives in shared memory, which is built once; on a GPU nothing is needed.

    Raises:
        MachineError: it is not built, and cannot be built here.
    """
    os.environ.setdefault("DS_ACCELERATOR", ranks.device.type)
    os.environ.setdefault("LOCAL_RANK", "0")  # of a process that torchrun did not start
    if ranks.device.type != "cpu":
        return
    is_local_first = os.environ["LOCAL_RANK"] == "0"
    for is_next in (is_local_first, not is_local_first):  # the others of a machine only load it
        problems = [found for found in ranks.gather(_prepare() if is_next else "") if found]
        if problems:
            raise MachineError(problems[0])


def operator_folder() -> Path:
    """Where the operator is: in TORCH_EXTENSIONS_DIR, which is taken to be of these packages, as in an image; else in
    the user's cache, by their versions."""
    if FOLDER_VARIABLE not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        versions = f"torch-{version('torch')}-deepspeed-{version('deepspeed')}-{sys.implementation.cache_tag}"
        os.environ[FOLDER_VARIABLE] = str(cache / "cosyflow" / "operators" / versions)
    return Path(os.environ[FOLDER_VARIABLE]) / OPERATOR


def _prepare() -> str:
    """Loads the operator, and builds it before if need be; what is in the way, else ""."""
    try:
        folder = operator_folder()
        library = folder / f"{OPERATOR}.so"
        if library.exists() and not os.access(folder, os.W_OK):  # as in an image
            _load(library)
            return ""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "cosyflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several trainings one builds
            try:
                _load(library)
            except ImportError:  # not there, or of a build that was killed
                library.unlink(missing_ok=True)
                return _build(folder)
    except OSError as error:
        return _in_the_way(f"{error.filename} cannot be made ({error.strerror})")
    except ImportError as error:
        return _in_the_way(str(error).partition("\n")[0])
    return ""


def _build(folder: Path) -> str:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return _in_the_way(f"{' and '.join(missing)} is not installed")
    (folder / "lock").unlink(missing_ok=True)  # a build that was killed left it, and torch would wait for its end
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    try:
        ShareMemCommBuilder().load(verbose=False)
    except (RuntimeError, ImportError) as error:
        return _in_the_way(str(error).partition("\n")[0])
    return ""


def _load(library: Path) -> None:
    """Loads what was built before. Raises ImportError.

    DeepSpeed's own way writes next to it, and builds it anew where ninja finds other times than it noted.
    """
    from deepspeed.ops.op_builder.builder import OpBuilder
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    loader = importlib.machinery.ExtensionFileLoader(OPERATOR, str(library))
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(OPERATOR, loader, origin=str(library)))
    loader.exec_module(module)
    OpBuilder._loaded_ops[ShareMemCommBuilder.NAME] = module


def _in_the_way(reason: str) -> str:
    return (
        f"train_engine deepspeed: without a GPU it needs its operator {OPERATOR}, and that cannot be built: {reason};"
        f" take the train image, which has it, or install {' and '.join(TOOLS)} and name a folder that can be written"
        f" to in {FOLDER_VARIABLE}, or give train_engine torch_ddp"
    )
