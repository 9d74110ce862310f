"""Makes the page of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.report import REPORT, read_report
from cosyflow.page.data import data
from cosyflow.page.elements import append, document, element, missing
from cosyflow.page.figures import decision, figures
from cosyflow.page.going_on import commands, links, stages
from cosyflow.page.listening import listening
from cosyflow.page.losses import losses
from cosyflow.page.sources import Sources, read_sources
from cosyflow.unexpected import reading

PAGE = "page.html"
EVALUATION = "evaluation"
"""Folder of a run's own evaluation, within the run's."""
LARGEST = 5_000_000
"""Bytes of a page."""
SPARE = 1000
"""Bytes for what is said of samples that are left out."""
SAMPLES = 6
NO_EVALUATION = "The run was not evaluated; the last section has the commands."
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 1240px; margin: 2em auto;
  padding: 0 1em; }
h1, h2, h3 { line-height: 1.2; }
h2 { border-bottom: 1px solid #ccc; padding-bottom: .2em; margin-top: 2em; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .15em .8em .15em 0; border-bottom: 1px solid #eee; }
td:last-child, .missing, .bad, h1, h3 { overflow-wrap: anywhere; }
.figures td { font-variant-numeric: tabular-nums; }
code { background: #f2f2f2; padding: .1em .3em; overflow-wrap: anywhere; }
figure { margin: 0; width: 460px; max-width: 100%; }
.sample figure { width: 280px; }
figcaption { font-weight: 600; }
audio, img { display: block; width: 100%; margin: .2em 0; }
img { height: 100px; }
svg { max-width: 100%; height: auto; }
svg text { font-size: 11px; }
svg text:not([fill]) { fill: #444; }
.charts { display: flex; flex-wrap: wrap; gap: 1.5em; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: #ddd; stroke-width: 1; }
.missing { color: #85500a; }
.bad, .failed { color: #a11; }
.good { color: #161; }
.decision { font-weight: 600; }
.facts { color: #555; font-size: 13px; }
q { font-style: italic; }
"""


@dataclass(frozen=True)
class Wanted:
    """What is asked for."""

    run: str
    """See `read_sources`."""
    evaluation: str = ""
    """Folder or report of `cosyflow evaluate`; by default `evaluation` in the run's folder, where there is one."""
    samples: int = SAMPLES


def make_page(wanted: Wanted) -> str:
    """The page of a run as HTML. Equal content gives equal bytes; what is missing is said where it would be.

    Raises:
        CosyFlowError: there is no such run, or the evaluation that was named cannot be read.
    """
    sources = read_sources(wanted.run)
    report, report_uri, trouble = _report(wanted, sources)
    listen = element("div")
    if report is None:
        append(listen, missing(trouble))
    body = _body(sources, report, report_uri, trouble, listen)
    title = f"CosyFlow {sources.name}"
    if report is not None:
        room = LARGEST - SPARE - len(document(title, STYLE, body).encode())
        with _report_read(report_uri):
            append(listen, *listening(report, wanted.samples, room))
    return document(title, STYLE, body)


def _report(wanted: Wanted, sources: Sources) -> tuple[Any, str, str]:
    """The evaluation's report, its address, and why there is none."""
    place = wanted.evaluation or storage.join(sources.uri, EVALUATION)
    uri = place if place.endswith(".json") else storage.join(place, REPORT)
    if not wanted.evaluation and not storage.exists(uri):
        return None, "", NO_EVALUATION
    return read_report(uri), uri, ""


def _body(sources: Sources, report: Any, report_uri: str, trouble: str, listen: Element) -> list[Element]:
    body = [element("h1", f"Run {sources.name}"), *_heading(sources)]
    body += [element("h2", "Listen"), listen]
    body.append(element("h2", "Decision of the gate"))
    if report is None:
        body += [missing(trouble), element("h2", "Figures"), missing(trouble)]
    else:
        with _report_read(report_uri):
            body += [*decision(report), element("h2", "Figures"), *figures(report)]
    body += [element("h2", "Training"), *losses(sources)]
    body += [element("h2", "Data"), *data(sources)]
    body += [element("h2", "Stages"), stages(sources)]
    body += [element("h2", "Further"), *links(sources)]
    with _report_read(report_uri):
        body += [element("h2", "Listen and go on"), *commands(sources, report, report_uri)]
    return body


def _report_read(uri: str) -> Any:
    return reading(uri, "a report of cosyflow evaluate", "evaluate again")


def _heading(sources: Sources) -> list[Element]:
    failed = [end for end in sources.ends if end.state == "failed"]
    record = sources.record
    what = f"{record.recipe_name}, {record.run.model}. " if record else ""
    state = "A stage failed." if failed else "No stage failed."
    parts = [element("p", f"{what}{state}", class_="bad" if failed else "good")]
    parts += [element("p", f"{end.stage} {end.name}: {end.error}", class_="bad") for end in failed]
    if any(manifest.stand_ins for manifest in sources.manifests()):
        parts.append(element("p", "Stand-in models took part: nothing here is fit for use.", class_="bad"))
    return parts + [missing(problem) for problem in sources.problems]


def write_page(wanted: Wanted, output: str = "") -> str:
    """Makes a page and writes it; returns where it is: `page.html` in the run's folder, unless another is asked for."""
    if output.endswith("/") or (output and storage.is_folder(output)):
        raise CosyFlowError(f"{output}: is a folder; name a file, such as {storage.join(output, PAGE)}")
    html = make_page(wanted)
    uri = output or storage.join(wanted.run, PAGE)
    storage.write_text(uri, html)
    return uri
