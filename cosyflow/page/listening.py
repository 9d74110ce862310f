"""Samples of an evaluation: what the model spoke, next to the recording, with what was understood of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from cosyflow.evaluation.rows import CANDIDATE, ROWS
from cosyflow.evaluation.statistics import Pair
from cosyflow.page.charts import short
from cosyflow.page.elements import append, element, missing
from cosyflow.page.media import playing

ORDERED_BY = ("wer", "cer", "similarity")
"""The metric by which samples are chosen, the first that was judged."""


def listening(report: Any, at_most: int, room: int) -> list[Element]:
    """The section with players.

    Args:
        report: of `cosyflow evaluate`.
        at_most: number of texts.
        room: bytes of the page that are left for it.
    """
    utterances = report["utterances"].get(CANDIDATE) or {}
    chosen, by = choose(utterances, at_most)
    if not chosen:
        return [missing("The evaluation has no utterance.")]
    how = f"from the least to the greatest {by}" if by else "evenly from the list"
    parts = [element("p", f"{len(chosen)} of {len(utterances)} utterances, chosen {how}.")]
    for place, utt in enumerate(chosen):
        sample = _sample(report, utt)
        room -= len(ElementTree.tostring(sample, encoding="utf-8", method="html"))
        if room < 0:
            parts.append(missing(f"{len(chosen) - place} more would make the page larger than it may be."))
            break
        parts.append(sample)
    return parts


def choose(utterances: dict[str, Any], at_most: int) -> tuple[list[str], str]:
    """Names of utterances, spread evenly over their order by a metric, with both ends, and the metric ("": none)."""
    names = list(utterances)
    by = next((name for name in ORDERED_BY if all(name in each["measured"] for each in utterances.values())), "")
    if by:
        names.sort(key=lambda utt: (_ratio(utterances[utt]["measured"][by]), utt))
    count = min(at_most, len(names))
    if count < 2:
        return names[:count], by
    return [names[place * (len(names) - 1) // (count - 1)] for place in range(count)], by


def _ratio(pair: Pair) -> float:
    amount, weight = pair
    return amount / weight


def _sample(report: Any, utt: str) -> Element:
    rows = report["utterances"]
    sample = element("section", element("h3", utt), class_="sample")
    there = [row for row in ROWS if utt in (rows.get(row) or {})]
    append(sample, element("div", *(_row(row, rows[row][utt]) for row in there), class_="charts"))
    lacking = [row for row in ROWS if row not in there]
    if lacking:
        append(sample, missing(f"Not there: {', '.join(lacking)}."))
    return sample


def _row(row: str, found: Any) -> Element:
    return _with_words(playing(row, str(found["wav"])), found)


def _with_words(figure: Element, found: Any) -> Element:
    append(figure, element("p", "said: ", element("q", str(found["said"]))))
    if "heard" in found:
        append(figure, element("p", "understood: ", element("q", str(found["heard"]))))
    if found.get("failure"):
        append(figure, element("p", f"failure: {found['failure']}", class_="bad"))
    words = ", ".join(_measured(found["measured"]))
    append(figure, element("p", words or "no judge heard it", class_="facts"))
    return figure


def _measured(measured: dict[str, Pair]) -> Iterator[str]:
    for name, pair in measured.items():
        if name != "failures":
            yield f"{name} {short(_ratio(pair))}"
