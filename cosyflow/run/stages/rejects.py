"""How many utterances a stage may reject: no setting of its outputs, but a condition on them."""

from __future__ import annotations

from typing import Any

from cosyflow.errors import Problem, RefusalError
from cosyflow.run.record import Record
from cosyflow.stage import Manifest

IMPORTED = "import"
"""In the details of a manifest: what came of the import that a corpus needed."""


def too_many_rejects(manifest: Manifest, record: Record) -> str:
    """Finished work with more rejects than the run allows is refused, as doing it again would be."""
    total, rejected = _of_import(manifest.details[IMPORTED]) if IMPORTED in manifest.details else _of_stage(manifest)
    share = record.run.max_reject_share
    if rejected > share * total:
        text = (
            f"{share:g} is less than {rejected} of {total} utterances, which {manifest.stage} {manifest.name} rejected"
            f" (see {manifest.uri}); correct them, or raise it"
        )
        raise RefusalError([Problem("max_reject_share", text)])
    return ""


def _of_stage(manifest: Manifest) -> tuple[int, int]:
    return manifest.counts.get("inputs", 0), manifest.counts.get("rejects", 0)


def _of_import(imported: dict[str, Any]) -> tuple[int, int]:
    """Of the whole corpus, of which the subset may be a part."""
    rejected = sum(imported["rejected"].values())
    return imported["taken"] + rejected, rejected
