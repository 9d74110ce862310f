"""Exports models of the released sizes with random weights, part by part: time, size, difference and memory.

    python tests/bench/export.py [--versions cosyvoice cosyvoice2 cosyvoice3] [--parts llm flow hifigan] [--keep DIR]

Each file is run and compared with the model at ten lengths, as by `cosyflow export`. A part is a process of its own and
leaves nothing behind; with --keep its files, and the weights they come from, go to DIR/VERSION.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("cosyvoice", "cosyvoice2", "cosyvoice3")
PARTS = ("llm", "flow", "hifigan")


def export_part(version: str, part: str, folder: Path) -> None:
    from cosyflow.checkpoint.official import save_official
    from cosyflow.config.load import load_config
    from cosyflow.families import facet
    from cosyflow.release.export import export_model

    recipe = load_config(ROOT / "conf" / f"{version}.yaml")
    torch.manual_seed(0)
    model = facet(recipe.version, "models").BUILDERS[part](recipe)
    parameters = sum(weight.numel() for weight in model.parameters())
    save_official(model, folder / f"{part}.pt")
    del model
    start = time.perf_counter()
    result = export_model(recipe, part, str(folder / f"{part}.pt"), str(folder))
    seconds = time.perf_counter() - start
    sizes = ", ".join(f"{name} {(folder / name).stat().st_size / 1e6:.0f} MB" for name in result.files)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{version} {part}, {parameters / 1e6:.0f} M parameters: {sizes}; {seconds:.0f} s,"
        f" largest difference {result.details['largest_difference']:.1e}, peak memory {memory:.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", choices=VERSIONS, default=VERSIONS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        export_part(args.versions[0], args.parts[0], args.one)
        return
    for version in args.versions:
        for part in args.parts:
            with tempfile.TemporaryDirectory() as folder:
                into = args.keep / version if args.keep else Path(folder)
                into.mkdir(parents=True, exist_ok=True)
                chosen = ["--versions", version, "--parts", part, "--one", str(into)]
                subprocess.run([sys.executable, __file__, *chosen], check=True)


if __name__ == "__main__":
    main()
