"""A report in a real browser, by ``nox -s report``; pictures of the page for people to look at are in ``build/report``.

Not among the tests that CI runs, for the browser. ``CHROMIUM`` names one that is installed already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import pytest
import yaml
from helpers.alloy import crystal, options

from atomtrain import api

playwright = pytest.importorskip("playwright.sync_api")
PICTURES = Path(__file__).parents[3] / "build" / "report"
# a browser without a GPU says that it draws slowly when somebody takes a picture of it
IGNORED = "GPU stall due to ReadPixels"
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
WHOLE = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a little training."""
    folder = tmp_path_factory.mktemp("browsed")
    frames = [crystal(seed) for seed in range(40)]
    for k, atoms in enumerate(frames):
        atoms.info["phase"] = ["fcc", "other"][k % 2]
    ase.io.write(folder / "crystal.xyz", frames, format="extxyz")
    given = options(final_eval={"report": {}})
    given["architecture"]["training"]["num_epochs"] = 12
    given["training_set"]["targets"]["mtt::phase"] = {"key": "phase", "type": "classes"}
    (folder / "options.yaml").write_text(yaml.safe_dump(given))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return (api.train("options.yaml").directory / "report.html").resolve()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        path = os.environ.get("CHROMIUM")
        flags = ["--no-sandbox", "--enable-unsafe-swiftshader"]
        found = started.chromium.launch(executable_path=path, args=flags)
        yield found
        found.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    page.locator("#worst").scroll_into_view_if_needed()
    page.wait_for_selector("#viewer canvas")
    assert "the worst atom is marked" in page.inner_text("#viewed")
    before = page.inner_text("#viewed")
    page.locator("button.look").nth(3).click()
    assert page.inner_text("#viewed") != before
    page.locator("#turn").click()
    assert page.get_attribute("#turn", "aria-pressed") == "true"
    page.locator("#turn").click()
    page.evaluate(
        "document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })"
    )
    page.wait_for_function(WHOLE)
    assert page.evaluate(FITS), "the page is wider than the screen"
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{width}_{scheme}.png", full_page=True)
    assert [line for line in said if IGNORED not in line] == []
    assert [url[:80] for url in asked if not url.startswith(("file:", "data:"))] == []
    context.close()
