"""A page in a headless Chromium: its console stays empty, its players play, its pictures are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.page.make import Wanted, write_page
from tests.unit.packages import CHECKOUT
from tests.unit.page.browser import chromium
from tests.unit.page.conftest import EVIL, FinishedRun, evaluate

SCREENSHOT = CHECKOUT / "build" / "page" / "run.png"
PLAYED = """
Promise.all([...document.querySelectorAll("audio")].map(async (audio) => {
  await audio.play();
  while (!audio.ended) await new Promise((resolve) => setTimeout(resolve, 20));
  return audio.duration;
}))
"""
PICTURES = "[...document.images].map((image) => [image.naturalWidth, image.naturalHeight])"


@pytest.mark.medium
def test_a_browser_shows_and_plays_a_page_and_has_no_complaints(finished: FinishedRun, tmp_path: Path) -> None:
    evaluation = evaluate(tmp_path / "eval", {"u1": "One.", EVIL: EVIL}, seconds=0.6, heard=EVIL)
    page = Path(write_page(Wanted(finished.leave(), evaluation), str(tmp_path / "page.html")))
    with chromium(tmp_path / "profile") as tab:
        tab.open(page.as_uri())
        lengths = tab.value(PLAYED)
        assert len(lengths) == 4
        assert all(0.5 < seconds < 0.8 for seconds in lengths)
        assert tab.value(PICTURES) == [[60, 80]] * 4
        assert tab.value("document.scripts.length") == 0
        assert EVIL in tab.value("document.body.innerText")
        assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")
        tab.picture(SCREENSHOT)
        assert tab.complaints == []
        assert {url.partition(":")[0] for url in tab.requests} <= {"file", "data"}
    assert SCREENSHOT.stat().st_size > 10_000
