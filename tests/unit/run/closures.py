"""What code each stage's work is made by, as digests in a file that is checked in: `python -m tests.unit.run.closures`.

A stage's outputs are named by its version, which somebody must raise when equal settings and inputs give other outputs.
So that nobody forgets, this keeps a digest of all code that a stage's `work` and `settings` reach: of the modules of
`cosyflow.run.stages` the definitions that they use, of all others the whole module, whether it is imported at the top,
within a function, as what a family says of itself (`facet`), or started as a process (`python -m`). Comments,
docstrings, blank lines and imports for type checkers alone change no digest.

LEFT_OUT has no say in what is written, or in its name only: records, plans and reports (what of a record goes into the
work is in its key), messages, places, the ways to start and to watch a training; and what digests and keys are, since
another definition gives other names by itself.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosyflow.families import family_names
from cosyflow.run.stages import STAGES

CHECKOUT = Path(__file__).resolve().parents[3]
FILE = Path(__file__).with_name("closures.json")
LEFT_OUT = (
    "cosyflow.run", "cosyflow.errors", "cosyflow.progress", "cosyflow.storage", "cosyflow.stage", "cosyflow.content",
    "cosyflow.launch.client", "cosyflow.launch.follow", "cosyflow.launch.job", "cosyflow.launch.kinds",
    "cosyflow.launch.objects", "cosyflow.launch.pods", "cosyflow.launch.settings", "cosyflow.launch.spec",
    "cosyflow.launch.surroundings", "cosyflow.launch.terminal", "cosyflow.training.failure",
    "cosyflow.training.heartbeat", "cosyflow.training.parent", "cosyflow.training.telemetry",
    "cosyflow.training.tracking", "cosyflow.lease", "cosyflow.processes", "cosyflow.scratch",
    "cosyflow.beginning", "cosyflow.unexpected",
    "cosyflow.redaction", "cosyflow.credentials", "cosyflow.mlflow_server",
)  # fmt: skip
STAGES_PACKAGE = "cosyflow.run.stages"
FAMILIES = "cosyflow.families"
STARTS = ("work", "settings")
Closures = dict[str, dict[str, Any]]
Reached = dict[str, set[str]]
"""Module -> the definitions of it that are reached; WHOLE stands for all."""
WHOLE = "*"


def file_of(module: str, root: Path) -> Path | None:
    """The file of a module; None where there is none of that name."""
    path = root.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def counts(module: str) -> bool:
    if module.startswith(f"{STAGES_PACKAGE}."):
        return True
    return module != "cosyflow" and not any(module == name or module.startswith(f"{name}.") for name in LEFT_OUT)


class _Bare(ast.NodeTransformer):
    """Takes docstrings, and imports for type checkers, out of a syntax tree; comments are not in it anyhow."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if "TYPE_CHECKING" in ast.dump(node.test):
            return None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


@functools.cache
def _parsed(text: str) -> ast.Module:
    tree: ast.Module = _Bare().visit(ast.parse(text))
    return tree


@functools.cache
def _dumped(text: str) -> str:
    return _dump(_parsed(text))


def _dump(node: ast.AST) -> str:
    """A syntax tree as text that is the same for every Python that runs the tests: 3.12 added a field."""
    return ast.dump(node).replace(", type_params=[]", "")


def _text(module: str, root: Path) -> str:
    file = file_of(module, root)
    assert file is not None, module
    return file.read_text(encoding="utf-8")


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """What a module defines or imports at its top, by name."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            found.update(dict.fromkeys(names, node))
        elif isinstance(node, ast.ImportFrom):
            found.update((alias.asname or alias.name, node) for alias in node.names)
    return found


def _imports(tree: ast.AST, root: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of all that code imports of CosyFlow, or starts as a process; the name is WHOLE for a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, WHOLE) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                is_module = file_of(f"{node.module}.{alias.name}", root) is not None
                yield (f"{node.module}.{alias.name}", WHOLE) if is_module else (node.module, alias.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cosyflow."):
            yield f"{node.value}.__main__", WHOLE
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from ((module, WHOLE) for module in _of_families(node.func.id, node.args))


def _of_families(function: str, arguments: list[ast.expr]) -> Iterator[str]:
    """Modules of the families' folders that a call imports: `family(NAME)`, or `facet(NAME, "models")`."""
    if function not in ("family", "facet"):
        return
    for name in family_names():
        yield f"{FAMILIES}.{name}"
        if function == "facet" and isinstance(arguments[1], ast.Constant):
            yield f"{FAMILIES}.{name}.{arguments[1].value}"


@functools.cache
def _imports_of(text: str, root: Path) -> tuple[tuple[str, str], ...]:
    return tuple(_imports(_parsed(text), root))


def reached(stage: str, root: Path = CHECKOUT) -> Reached:
    """What a stage's work and settings reach."""
    found: Reached = {}
    waiting = [(f"{STAGES_PACKAGE}.{stage.replace('-', '_')}", name) for name in STARTS]
    while waiting:
        module, name = waiting.pop()
        in_parts = module.startswith(f"{STAGES_PACKAGE}.")
        name = name if in_parts else WHOLE
        if module.partition(".")[0] != "cosyflow" or not counts(module) or name in found.get(module, ()):
            continue
        if file_of(module, root) is None:
            continue
        found.setdefault(module, set()).add(name)
        if not in_parts:
            waiting += _imports_of(_text(module, root), root)
            waiting.append((module.rpartition(".")[0], WHOLE))  # importing a module runs its package
            continue
        definitions = _definitions(_parsed(_text(module, root)))
        node = definitions.get(name)
        if isinstance(node, ast.ImportFrom):  # a name that another module's definition is used by
            waiting += [entry for entry in _imports(node, root) if entry[1] in (name, WHOLE)]
        elif node is not None:
            waiting += _imports(node, root)
            used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            waiting += [(module, other) for other in used & definitions.keys() if other != "STAGE"]
    return found


def _code(module: str, names: set[str], root: Path) -> str:
    text = _text(module, root)
    if WHOLE in names:
        return _dumped(text)
    definitions = _definitions(_parsed(text))
    return "".join(_dump(definitions[name]) for name in sorted(names & definitions.keys()))


def closures(root: Path = CHECKOUT) -> Closures:
    """`{stage: {"version", "digest", "modules"}}`, as the checked-in file has it."""
    found: Closures = {}
    for name, stage in STAGES.items():
        total, modules = hashlib.sha256(), reached(name, root)
        for module in sorted(modules):
            total.update(f"{module}\0{_code(module, modules[module], root)}\0".encode())
        found[name] = {"version": stage.version, "modules": len(modules), "digest": total.hexdigest()}
    return found


def undecided(kept: Closures, now: Closures) -> list[str]:
    """A line for each stage whose code is another and whose version is not."""
    return [
        f"{stage}: its code has changed: bump the version in cosyflow/run/stages/{stage.replace('-', '_')}.py, or"
        " acknowledge with: python -m tests.unit.run.closures"
        for stage, entry in now.items()
        if kept.get(stage, {}).get("version") == entry["version"] and kept[stage]["digest"] != entry["digest"]
    ]


def read() -> Closures:
    kept: Closures = json.loads(FILE.read_text(encoding="utf-8"))
    return kept


def main() -> None:
    FILE.write_text(json.dumps(closures(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
