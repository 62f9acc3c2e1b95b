"""The report in a real browser: it draws, asks nobody for anything, complains of nothing, and fits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.train.reports import IMAGE, SCRIPT, evaluated

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""With which Chromium itself asks for nothing either, and runs as root in a container."""
pytestmark = pytest.mark.slow  # `make test-all` installs the browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: sh tests/install.sh browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated(tmp_path_factory.mktemp("report"), "--hops", "8", "--lookaheads", "0", "15", harmful=True) / (
        "report.html"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_requests_nothing_and_runs_nothing(browser: Browser, page: Path, scheme: str, width: int) -> None:
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    requests: list[str] = []
    said: list[str] = []
    opened.on("request", lambda request: requests.append(request.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: said.append(f"alert {dialog.message}"))
    opened.goto(page.as_uri())
    opened.mouse.wheel(0, 5000)
    assert requests == [page.as_uri()]
    assert said == []
    assert opened.title() == "Evaluation of seeded"
    text = opened.inner_text("body")
    assert SCRIPT in text
    assert IMAGE in text
    assert opened.evaluate("document.documentElement.scrollWidth") <= width  # wide tables scroll by themselves
    sizes = opened.evaluate("[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().height)")
    assert len(sizes) >= 5
    assert min(sizes) > 20
    opened.close()


def test_dark_and_light_and_paper_are_readable(browser: Browser, page: Path) -> None:
    """Text and bars against the page: the contrast of WCAG, 4.5 for text and 3 for what is drawn."""
    contrast = """name => {
      const light = css => { const of = css.match(/[0-9.]+/g).slice(0, 3).map(one => one / 255)
        .map(one => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
        return 0.2126 * of[0] + 0.7152 * of[1] + 0.0722 * of[2]; };
      const style = getComputedStyle(document.querySelector(name));
      const page = light(getComputedStyle(document.body).backgroundColor);
      const own = light(name.startsWith('svg') ? style.fill : style.color);
      return (Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05); }"""
    opened = browser.new_page()
    opened.goto(page.as_uri())
    for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
        opened.emulate_media(media=media, color_scheme=scheme)  # type: ignore[arg-type]
        for name, least in (("p", 4.5), (".soft", 4.5), ("svg text", 4.5), ("svg .offline", 3), ("svg .streaming", 3)):
            assert opened.evaluate(contrast, name) >= least, (media, scheme, name)
    opened.close()
