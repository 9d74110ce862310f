"""Builds the container images, says how large they are, and writes the image lock that a compile reads."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from cosyflow import __version__
from cosyflow.cli.ending import ending
from cosyflow.cli.parser import Parser
from cosyflow.errors import CosyFlowError
from images.builders import BUILDERS, Builder, find_builder
from images.lock import write_lock
from images.plan import IMAGES, Build, made_by, plan_builds
from images.requirements import export
from images.sizes import Size, measure, read_sizes, write_sizes
from images.sources import git_commit

CHECKOUT = Path(__file__).resolve().parents[1]
REQUIREMENTS = CHECKOUT / "build/images/requirements"
PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
LOCAL_REGISTRY = "localhost"
BASE_LIMIT_BYTES = 250_000_000


def build_parser() -> Parser:
    parser = Parser(prog="python -m images", description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(IMAGES)}; without one, all")
    parser.add_argument("--builder", choices=["auto", *BUILDERS], default="auto")
    parser.add_argument("--uv", default="uv", help="the program uv")
    parser.add_argument(
        "--base-image", default=PYTHON_IMAGE, help="image with Python 3.11, by its digest for a release"
    )
    parser.add_argument(
        "--registry", default=LOCAL_REGISTRY, help="what the names begin with, e.g. registry.example/speech"
    )
    parser.add_argument("--push", action="store_true", help="send the images to the registry; the lock gets digests")
    parser.add_argument(
        "--measure",
        nargs="+",
        metavar="IMAGE",
        choices=IMAGES,
        default=IMAGES,
        help="print their sizes; they are compressed for it, which takes minutes",
    )
    parser.add_argument("--lock", type=Path, default=CHECKOUT / "build/images/images.lock.yaml")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds. Returns the exit status, as those of `cosyflow`: 1 after a failed build or a user's error."""
    args = build_parser().parse_args(arguments)
    return ending("images", lambda: _build(args))


def _build(args: argparse.Namespace) -> None:
    if unknown := sorted(set(args.images) - set(IMAGES)):
        raise CosyFlowError(f"{', '.join(unknown)}: not one of {', '.join(IMAGES)}")
    if args.push and args.registry == LOCAL_REGISTRY:
        raise CosyFlowError("--push needs --registry")
    builder = find_builder(args.builder)
    requirements = export(args.uv, CHECKOUT)
    REQUIREMENTS.mkdir(parents=True, exist_ok=True)
    for name, text in requirements.items():
        (REQUIREMENTS / f"{name}.txt").write_text(text, encoding="utf-8")

    builds = plan_builds(CHECKOUT, args.images or IMAGES, args.registry, args.base_image, requirements)
    labels = {"GIT_COMMIT": git_commit(CHECKOUT), "VERSION": __version__}
    for number, build in enumerate(builds, 1):
        _make(builder, build, labels, f"build {number} of {len(builds)}: {build.reference}")

    finished = made_by(builds)
    _report_sizes(builder, {image: name for image, name in finished.items() if image in args.measure})
    if args.push:
        finished = {image: builder.push(reference) for image, reference in finished.items()}
    write_lock(args.lock, finished)
    print(f"image lock: {args.lock}")


def _make(builder: Builder, build: Build, labels: dict[str, str], title: str) -> None:
    if builder.exists(build.reference):
        print(f"{title} is there", flush=True)
        return
    print(title, flush=True)
    began = time.monotonic()
    given = {"BASE_IMAGE": build.upon, **(labels if build.finished else {})}
    builder.build(CHECKOUT, CHECKOUT / build.dockerfile, build.reference, given)
    print(f"{build.reference}: built in {time.monotonic() - began:.0f} s", flush=True)


def _report_sizes(builder: Builder, finished: dict[str, str]) -> None:
    """Prints the sizes. Those of layers are kept in the user's cache, as measuring means to compress for minutes.

    Raises:
        CosyFlowError: base, which every small stage waits for on a new node, is too large.
    """
    sizes = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cosyflow" / "layers.json"
    known = read_sizes(sizes)
    for image, reference in finished.items():
        digests = builder.layers(reference)
        if not known.keys() >= set(digests):
            with builder.archive(reference) as archive:
                known |= measure(archive, digests, known)
            write_sizes(sizes, known)
        size = sum((known[digest] for digest in digests), Size(0, 0))
        print(f"{reference}: {size}", flush=True)
        if image == "base" and size.compressed > BASE_LIMIT_BYTES:
            raise CosyFlowError(
                f"base has {size.compressed / 1e6:.0f} MB; at most {BASE_LIMIT_BYTES / 1e6:.0f} are wanted"
            )
