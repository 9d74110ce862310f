"""What the same few texts sounded like in the course of a training."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.progress import Sample, Spoken, folder_of, read_spoken, spoken_wavs
from cosyflow.page.elements import append, element, missing
from cosyflow.page.media import playing

MOST_CHECKPOINTS, MOST_TEXTS = 3, 2
"""That are played of a training: the first, the middle and the last."""


def samples_of(train_dir: str) -> list[Element]:
    """Players of a training's samples (`cosyflow samples`); nothing where there are none."""
    try:
        spoken = read_spoken(train_dir)
    except CosyFlowError as error:
        return [missing(f"Its samples cannot be read: {error}")]
    if not spoken:
        return []
    last = len(spoken) - 1
    chosen = [spoken[place] for place in sorted({0, last // 2, last})[:MOST_CHECKPOINTS]]
    figures = [_figure(each, sample, wav) for each in chosen for sample, wav in _playable(train_dir, each)]
    words = f"The same texts after {', '.join(f'{each.update:,}' for each in chosen)} updates"
    if len(chosen) < len(spoken):
        words += f", of {len(spoken)} checkpoints that were heard"
    silent = [f"{each.checkpoint}: {one.utt} {one.problem}" for each in chosen for one in each.samples if one.problem]
    return [
        element("h4", f"{words}."),
        element("div", *figures, class_="charts sample"),
        *(missing(f"{line}.") for line in silent[:MOST_TEXTS]),
    ]


def _playable(train_dir: str, spoken: Spoken) -> list[tuple[Sample, str]]:
    return list(spoken_wavs(folder_of(train_dir, spoken), spoken))[:MOST_TEXTS]


def _figure(spoken: Spoken, sample: Sample, wav: str) -> Element:
    figure = playing(f"{spoken.update:,} updates", wav)
    append(figure, element("p", "said: ", element("q", sample.text)))
    return figure
