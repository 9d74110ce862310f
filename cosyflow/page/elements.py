"""Elements of an HTML page. Every text and every attribute is escaped when the page is written."""

from __future__ import annotations

import math
import re
from urllib.parse import urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from cosyflow.redaction import redact

Child = Element | str | None
_NO_TEXT = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Marks that turn the direction of what is written after them."""
UNKNOWN = "\ufffd"
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; base-uri 'none'"
"""What a browser may load: nothing that is not in the page itself, and no scripts."""


def element(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """An element with texts and other elements in it; None is nothing.

    Args:
        attributes: `class_` is `class`, and `stroke_width` is `stroke-width`; those that are None are left out.
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name.rstrip("_").replace("_", "-"), number(value) if isinstance(value, float) else clean(value))
    append(made, *children)
    return made


def append(parent: Element, *children: Child) -> None:
    """Adds texts and elements to what is in an element already."""
    for child in children:
        if isinstance(child, Element):
            parent.append(child)
        elif child is not None and len(parent):
            parent[-1].tail = (parent[-1].tail or "") + clean(child)
        elif child is not None:
            parent.text = (parent.text or "") + clean(child)


def link(address: str, text: str = "") -> Element:
    """A link to a web address; of anything else the text alone."""
    try:
        parts = urlsplit(address)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme in ("http", "https") and parts.netloc:
        return element("a", text or address, href=redact(address), rel="noreferrer")
    return element("span", text or address)


def table(head: list[str], rows: list[list[Child]], **attributes: str) -> Element:
    """A table; numbers are aligned by the style of its class."""
    return element(
        "table",
        element("thead", element("tr", *(element("th", cell) for cell in head))),
        element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows)),
        **attributes,
    )


def missing(what: str) -> Element:
    """Says of a part of the page that it is not there, and why."""
    return element("p", what, class_="missing")


def clean(value: object) -> str:
    """A text without secrets, and without characters that HTML cannot have or that reorder what follows."""
    return _NO_TEXT.sub(UNKNOWN, _DIRECTION.sub("", redact(str(value))))


def number(value: float) -> str:
    """At most two digits after the point: coordinates, of which a page has thousands."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no coordinate")
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def document(title: str, style: str, body: list[Element]) -> str:
    """The whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", content=POLICY, http_equiv="Content-Security-Policy"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )
    root = element("html", head, element("body", *body), lang="en")
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"
