"""A real Chromium without a window, which remembers what pages ask for and complain of."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

#: The lowest contrast (WCAG 2.2, 1.4.3) between a text and what lies behind it, and that text.
_LOWEST_CONTRAST = """
const parse = (color) => color.match(/[\\d.]+/g).map(Number);
const light = (color) => {
  const [r, g, b] = parse(color).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = getComputedStyle(each).backgroundColor;
    if (parse(color)[3] !== 0) return color;
  }
  return "rgb(255, 255, 255)";
};
const spoken = [...document.querySelectorAll("body *")].filter((element) =>
  element.getClientRects().length && !["TITLE", "DESC", "OPTION"].includes(element.tagName.toUpperCase()) &&
  [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
return spoken.map((element) => {
  const style = getComputedStyle(element);
  const [a, b] = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
  return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.textContent.trim().slice(0, 60)];
}).reduce((low, each) => each[0] < low[0] ? each : low);
"""


#: What paper would lose: elements beyond its edge, parts that one would have to scroll to, and closed details.
_LOST_ON_PAPER = """
const root = document.documentElement, shown = (e) => e.getClientRects().length;
const told = (e) => `${e.tagName.toLowerCase()}.${e.getAttribute("class") ?? ""}: ${e.textContent.trim().slice(0, 40)}`;
const texts = [...document.querySelectorAll("main *, header *, footer *")].filter((e) => !e.closest(".hidden-text"));
const beyond = texts.filter((e) => shown(e) && e.getBoundingClientRect().right > root.clientWidth + 1);
const cut = texts.filter((e) => shown(e) && getComputedStyle(e).overflowX !== "visible" &&
  (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1) && !e.closest("svg"));
const closed = [...document.querySelectorAll("details > :not(summary)")].filter((e) => !e.checkVisibility());
return [...beyond, ...cut, ...closed].map(told);
"""
#: Width of A4 between the margins of the page, in pixels of CSS.
PAPER_WIDTH = 690


class Browser:
    """One page at a time.

    Attributes:
        driver: selenium's.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self,
        page: Path,
        width: int = 1280,
        *,
        dark: bool = False,
        scripts: bool = True,
        media: str = "screen",
    ) -> None:
        """Show a page in a window of so many pixels; as on paper where the media is ``print``."""
        self._command("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self._command("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._command("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        self.requests()
        self.driver.get(page.as_uri())

    def run(self, script: str) -> Any:
        """What a script returns that is run in the page."""
        return self.driver.execute_script(script)

    def find(self, selector: str) -> WebElement:
        """The first element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """All elements."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def shown(self, selector: str) -> list[WebElement]:
        """The elements that can be seen."""
        return [element for element in self.all(selector) if element.is_displayed()]

    def complaints(self) -> list[dict[str, Any]]:
        """What the console says since it was last asked."""
        return list(self.driver.get_log("browser"))

    def requests(self) -> list[str]:
        """The addresses of all that was asked for since this was last asked."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            entry["params"]["request"]["url"]
            for entry in entries
            if entry["method"] == "Network.requestWillBeSent"
        ]

    def lowest_contrast(self) -> tuple[float, str]:
        """The text that is hardest to read, and its contrast."""
        ratio, text = self.run(_LOWEST_CONTRAST)
        return ratio, text

    def lost_on_paper(self) -> list[str]:
        """Elements of the open page of which paper would not show all, with the beginning of their texts."""
        return list(self.run(_LOST_ON_PAPER))

    def print_pages(self) -> int:
        """Number of A4 pages of the open page in a PDF of it."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True, "printBackground": False}
        printed = self.driver.execute_cdp_cmd("Page.printToPDF", size)
        return base64.b64decode(printed["data"]).count(b"/Type /Page\n")

    def _command(self, name: str, parameters: dict[str, Any]) -> None:
        self.driver.execute_cdp_cmd(name, parameters)


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile.

    Skips the test where there is none and a plain user can't install it; ``make setup`` brings it for root.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        missing = "Chromium is not installed: apt-get install chromium chromium-driver, or make setup as root"
        if os.geteuid() == 0:
            pytest.fail(missing)
        pytest.skip(missing)
    options = Options()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()
