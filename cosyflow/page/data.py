"""What a run was trained on: lengths, rates, speakers, and what could not be used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from xml.etree.ElementTree import Element

import numpy as np

from cosyflow import storage
from cosyflow.corpus.rejects import REJECTS, read_rejects
from cosyflow.dataset.shard import DATA_LIST
from cosyflow.dataset.statistics import Statistics, gather_statistics
from cosyflow.errors import CosyFlowError
from cosyflow.page.charts import histogram, short
from cosyflow.page.elements import element, missing, table
from cosyflow.page.sources import Sources
from cosyflow.stage import Manifest

MOST_SHARDS = 100
"""Of a subset that are looked at; their figures stand for the others."""
MOST_SUBSETS = 20
MOST_REASONS = 20
LONGEST_REASON = 200
_ADDRESS = re.compile(r"(?<!\S)(?:[a-z0-9]+://|/)\S*?(?=[:;,)]?(?:\s|$))")
_AMOUNT = re.compile(r"\d[\d.,]*\b")


def data(sources: Sources) -> list[Element]:
    """The section on the utterances of every subset."""
    made = sources.manifests("parquet")
    parts: list[Element] = []
    if not made:
        parts.append(missing("There is nothing to say of the data: the run has no finished stage `parquet`."))
    for manifest in made[:MOST_SUBSETS]:
        parts.append(element("h3", manifest.name))
        try:
            found = gather_statistics(storage.join(manifest.uri, DATA_LIST), MOST_SHARDS)
        except CosyFlowError as error:
            parts.append(missing(f"Its shards cannot be read: {error}"))
        else:
            parts += _of_subset(manifest, found)
    if len(made) > MOST_SUBSETS:
        parts.append(missing(f"And {len(made) - MOST_SUBSETS} further subsets, which are not looked at here."))
    return [*parts, element("h3", "Utterances that could not be used"), *_rejects(sources)]


def _of_subset(manifest: Manifest, found: Statistics) -> list[Element]:
    amounts = np.array(sorted(found.speakers.values()), np.int64)
    hours = found.seconds.sum() / 3600
    part = "" if found.shards == found.of_shards else f" (of {found.shards} of its {found.of_shards} shards)"
    words = f"{len(found):,} utterances{part}, {short(hours)} hours, {len(found.speakers):,} speakers."
    tokens = found.tokens_a_second
    charts = [
        histogram("duration", found.seconds, "seconds"),
        histogram("text", found.characters, "characters"),
        histogram("rate of speech tokens", tokens, "tokens a second")
        if len(tokens)
        else missing("rate of speech tokens: the shards have none"),
        histogram("speakers", amounts, "utterances of a speaker"),
    ]
    return [element("p", words), element("div", *charts, class_="charts")]


def _rejects(sources: Sources) -> list[Element]:
    """A table of reasons over all stages, the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    parts: list[Element] = []
    looked = 0
    seen: set[tuple[str, str]] = set()  # a later stage lists again what an earlier one rejected
    for manifest in sources.manifests():
        if REJECTS not in manifest.files:
            continue
        try:
            found = _own_rejects(manifest)
        except CosyFlowError as error:
            parts.append(missing(f"{manifest.stage} {manifest.name}: {error}"))
            continue
        looked += 1
        for utt, reason in sorted(found.items()):
            if (manifest.name, utt) in seen:
                continue
            seen.add((manifest.name, utt))
            kind = (manifest.stage, kind_of(reason))
            counts[kind] += 1
            examples.setdefault(kind, f"{utt}: {reason}"[:LONGEST_REASON])
    if not looked:
        return [*parts, missing("No stage of the run has a table of them.")]
    if not counts:
        return [*parts, element("p", "None: every utterance was used.")]
    listed = sorted(counts, key=lambda kind: (-counts[kind], kind))
    rows = [[f"{counts[kind]:,}", kind[0], kind[1], examples[kind]] for kind in listed[:MOST_REASONS]]
    parts.append(table(["", "stage", "reason", "for example"], [list(row) for row in rows]))
    if len(listed) > MOST_REASONS:
        rest = sum(counts[kind] for kind in listed[MOST_REASONS:])
        parts.append(element("p", f"And {len(listed) - MOST_REASONS} rarer reasons, of {rest:,} utterances."))
    return parts


def _own_rejects(manifest: Manifest) -> Mapping[str, str]:
    """What a stage rejected. Raises CosyFlowError when its table is not there or damaged."""
    uri = storage.join(manifest.uri, REJECTS)
    if not storage.exists(uri):
        raise CosyFlowError(f"{uri}: no such file")
    return read_rejects(manifest.uri)


def kind_of(reason: str) -> str:
    """A reason without what differs from utterance to utterance: addresses and amounts."""
    bare = _ADDRESS.sub("…", reason)
    return _AMOUNT.sub("N", bare).removeprefix("…: ")[:LONGEST_REASON]
