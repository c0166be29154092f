"""Pictures of the review page for its documents: the packaged example, reviewed in a browser by a script.

Run in the root of the clone, with Chromium and the extra ``test``: ``python docs/make_review.py``.
"""

from __future__ import annotations

import io
import shutil
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import nimbus_sd as ns

IMAGES = Path(__file__).parent / "images"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def _rest(page: Page, what: str = "true") -> None:
    page.wait_for_function(f"window.nimbus?.state.scores.value && nimbus.viewer?.stats().pending === 0 && {what}")
    page.wait_for_timeout(1200)


def _take(page: Page, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(IMAGES / name, quality=88, subsampling=0, optimize=True)


def main() -> None:
    """Answer for some cells of CD3, name a branch of the tree, and take a picture of each."""
    warnings.simplefilter("ignore")
    sdata = ns.datasets.example()
    adata = ns.predict(sdata, progress=False)
    ns.tl.flowsom(adata, channels=["CD45", "CD3", "CD8", "CD20", "CD68", "PanCK"], engine="minisom")
    truth, column = np.asarray(adata.layers.pop("gold")), adata.var_names.get_loc("CD3")
    review = ns.review(sdata, annotator="anna")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, bypass_csp=True)
        page.goto(review.url)
        _rest(page)
        page.evaluate("nimbus.state.selectMarker('CD3'); nimbus.state.paint.value = 'call'")
        for number in range(12):
            page.keyboard.press("n")
            page.wait_for_function("nimbus.state.selected.value !== null && nimbus.state.reason.value !== ''")
            row = page.evaluate("nimbus.state.selected.value")
            page.keyboard.press("+" if truth[row, column] > 0.5 else "-")
            page.wait_for_function(f"nimbus.state.unsaved.value === {number + 1}")
            page.wait_for_function(f"nimbus.state.selected.value !== {row}")
        page.evaluate("nimbus.state.notices.value = []")
        page.evaluate(
            "nimbus.state.region.value = 0; nimbus.state.mode.value = 'fills'; nimbus.state.opacity.value = 0.45"
        )
        page.evaluate("nimbus.viewer.goTo(230, 230, 330)")
        page.mouse.move(5, 400)
        _rest(page)
        _take(page, "review.jpg")
        page.evaluate("nimbus.state.selectCell(null)")
        page.get_by_role("tab", name="Clusters").click()
        page.locator(".heat [role=option]").nth(2).click()
        page.evaluate("nimbus.state.notices.value = []; nimbus.viewer.fit()")
        page.mouse.move(5, 400)
        _rest(page)
        _take(page, "review_clusters.jpg")
        browser.close()
    review.stop()


if __name__ == "__main__":
    main()
