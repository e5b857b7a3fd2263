"""The report in a real browser: it filters, sorts and opens, on a wide screen and on a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_frozen.evaluation.runs import store_run
from tests.evaluation import data
from tests.evaluation.test_report import odd
from tests.test_pipeline import pipeline

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = store_run(pipeline(), data(), tmp_path_factory.mktemp("run"))
    return run.folder / "report.html"


_HEIGHTS = "return [...document.querySelectorAll('th')].map(one => one.offsetHeight)"
_SHOWN = """
return [...document.querySelectorAll('#all th')].filter(one => one.offsetWidth)
  .map(one => one.textContent)
"""
_CUT = """
return [...document.querySelectorAll('svg')].flatMap(svg => [...svg.querySelectorAll('text')]
  .filter(one => { const box = one.getBBox(), view = svg.viewBox.baseVal;
    return box.x < -1 || box.x + box.width > view.width + 1; }).map(one => one.textContent))
"""
"""Texts of pictures that stand outside of them."""


def rows(browser: Any) -> list[str]:
    found = browser.find_elements("css selector", "tr.row td:first-child")
    return [one.text for one in found]


def open_page(browser: Any, path: Path, *, width: int, scheme: str = "light") -> None:
    browser.set_window_size(width, 900)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.as_uri())


def choose(browser: Any, kind: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", "kind")).select_by_value(kind)


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def test_it_filters_sorts_and_opens_without_a_console_error(browser, report: Path):
    open_page(browser, report, width=1200)
    assert rows(browser) == ["which city", "which town", "unknown"]
    browser.find_element("id", "text").send_keys("town")
    assert rows(browser) == ["which town"]
    browser.find_element("id", "text").clear()
    browser.execute_script("document.getElementById('text').dispatchEvent(new Event('input'))")
    choose(browser, "right")
    assert rows(browser) == ["which city"]
    browser.find_element("css selector", "tr.row").click()
    opened = browser.find_element("css selector", "tr.row + tr").text
    assert "Rome, Rome and rome." in opened
    marks = browser.find_elements("css selector", "tr.row + tr mark")
    assert [mark.text for mark in marks] == ["Rome", "Rome", "rome"]
    browser.find_element("css selector", "tr.row").click()
    assert not browser.find_elements("css selector", "tr.row + tr mark")
    choose(browser, "")
    browser.find_element("css selector", "button[data-key=question]").click()
    assert rows(browser) == ["unknown", "which city", "which town"]
    browser.find_element("css selector", "button[data-key=question]").click()
    assert rows(browser) == ["which town", "which city", "unknown"]
    assert errors(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(browser, report: Path, scheme: str):
    open_page(browser, report, width=360, scheme=scheme)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 360
    shown = browser.execute_script(_SHOWN)
    assert shown == ["question", "prediction", "gold"]
    browser.find_elements("css selector", "tr.row")[1].click()
    opened = browser.find_element("css selector", "tr.row + tr:not(.row)")
    assert "F1 0 · lost at reading" in opened.text
    assert opened.size["width"] <= 360
    ths = browser.execute_script(_HEIGHTS)  # letters below each other would be tall
    assert max(ths) <= 64, ths
    first = browser.find_element("css selector", "tr.row td:first-child")
    assert first.size["width"] >= 120
    assert browser.execute_script(_CUT) == []
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in colour.strip("rgba()").split(",")[:3])
    assert (brightness < 200) == (scheme == "dark")
    if folder := os.environ.get("RAG_FROZEN_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"report-{scheme}.png"))
    assert errors(browser) == []


def test_markup_in_the_data_does_not_run(browser, tmp_path: Path):
    (tmp_path / "odd.html").write_text(odd(), encoding="utf-8")
    open_page(browser, tmp_path / "odd.html", width=800)
    browser.find_element("css selector", "tr.row").click()
    assert "<img src=x" in browser.find_element("css selector", "tr.row + tr").text
    assert errors(browser) == []  # an alert or a failed image would be one
