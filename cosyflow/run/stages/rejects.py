"""How many utterances a stage may reject: no setting of its outputs, but a condition on them."""

from __future__ import annotations

from cosyflow.errors import Problem, RefusalError
from cosyflow.run.record import Record
from cosyflow.stage import Manifest


def too_many_rejects(manifest: Manifest, record: Record) -> str:
    """Finished work with more rejects than the run allows is refused, as doing it again would be."""
    total, rejected = manifest.counts.get("inputs", 0), manifest.counts.get("rejects", 0)
    share = record.run.max_reject_share
    if rejected > share * total:
        text = (
            f"{share:g} is less than {rejected} of {total} utterances, which {manifest.stage} {manifest.name} rejected"
            f" (see {manifest.uri}); correct them, or raise it"
        )
        raise RefusalError([Problem("max_reject_share", text)])
    return ""
