"""The image lock: the file that says by which name a compiled pipeline asks for each image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from images.plan import TASK_IMAGES

HEAD = "# Which images a compiled pipeline uses: python -m pipelines compile --images THIS_FILE\n"


def write_lock(path: Path, references: Mapping[str, str]) -> None:
    """Writes the references of images; those of images that are not named stay as they are."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = {**content.get("servers", {}), **content.get("images", {}), **references}
    lock = {"images": {image: known[image] for image in TASK_IMAGES if image in known}}
    if servers := {image: known[image] for image in sorted(known.keys() - set(TASK_IMAGES))}:
        lock["servers"] = servers
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_text(HEAD + yaml.safe_dump(lock), encoding="utf-8")
    unfinished.replace(path)
