"""The pages in a real browser: nothing fetched, nothing run, nothing cut off, and quick."""

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest

from alexnet_jax.inspect.explorer import Looked, build_explorer
from alexnet_jax.inspect.page import write_report
from alexnet_jax.inspect.sections import center_crops
from alexnet_jax.runs.workdir import load_run
from tests.tiny_run import write_run

webdriver = pytest.importorskip("selenium.webdriver", reason="needs Selenium (extra browser)")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]
IMAGE = "<img src=x onerror='window.harmed=1'>"  # may be a folder's name
EVIL = f"{IMAGE}<script>window.harmed=1</script>\"'&"
SIZES = [(1400, 1000), (420, 900)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory, digits):
    """Explorer and report of a run whose folder and classes have names that do harm."""
    folder = tmp_path_factory.mktemp("browser")
    run = load_run(write_run(folder / IMAGE, kept=(0, 21)))
    names = tuple(f"{n}{EVIL}" for n in range(10))
    config = run.config.copy_and_resolve_references()
    evil = dataclasses.replace(run, class_names=names, config=config)
    images = np.asarray(digits.source.read(np.arange(30))["image"])
    labels = np.asarray(digits.source.read(np.arange(30))["label"])
    searched = Looked(images, center_crops(images, run.model.image_size), labels)
    html = build_explorer(evil, searched, Looked(*(x[:4] for x in searched)), units=4, visualised=0)
    explorer = folder / "explorer.html"
    explorer.write_text(html, encoding="utf-8")
    write_report(run, folder / "report.html", images=40, gallery=60)
    return {"explorer": explorer, "report": folder / "report.html"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def opened(browser, page, size, scheme="light"):
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get("about:blank")
    start = time.perf_counter()
    browser.get(page.as_uri())
    return time.perf_counter() - start


def requests(browser):
    messages = (json.loads(row["message"])["message"] for row in browser.get_log("performance"))
    sent = [m["params"]["request"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [request["url"] for request in sent]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["explorer", "report"])
def test_a_page_fetches_nothing_says_nothing_and_fits(browser, pages, name, size, scheme):
    seconds = opened(browser, pages[name], size, scheme)
    assert seconds < 2
    urls = [url for url in requests(browser) if not url.startswith("data:")]
    assert urls == [pages[name].as_uri()]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(dark.replace("rgb(", "[").replace(")", "]"))) < 150) == (
        scheme == "dark"
    )


@pytest.mark.parametrize(("name", "shown"), [("explorer", EVIL), ("report", IMAGE)])
def test_names_from_outside_do_no_harm(browser, pages, name, shown):
    opened(browser, pages[name], SIZES[0])
    assert browser.execute_script("return window.harmed") is None
    assert browser.execute_script("return document.scripts.length") == 0
    assert shown in browser.execute_script("return document.body.textContent")


@pytest.mark.parametrize("size", SIZES)
def test_every_link_shows_what_it_names_within_a_tenth_of_a_second(browser, pages, size):
    """Clicks through layers, units and images, each time until the next picture is painted."""
    opened(browser, pages["explorer"], size)
    links = browser.find_elements("css selector", "a[href^='#']")
    targets = [link.get_dom_attribute("href") for link in links]
    assert {"#conv1", "#conv5-8", "#fc8-0", "#image-2", "#images", "#film"} <= set(targets)
    took = []
    for target in dict.fromkeys(targets):
        took.append(
            browser.execute_async_script(
                """const [target, done] = arguments, start = performance.now();
                document.querySelector(`a[href="${target}"]`).dispatchEvent(
                  new MouseEvent("click", {bubbles: true, cancelable: true}));
                requestAnimationFrame(() => requestAnimationFrame(
                  () => done(performance.now() - start)));""",
                target,
            )
        )
        shown = browser.find_element("css selector", target)
        assert shown.is_displayed(), target
        others = browser.find_elements("css selector", ".panel")
        assert [x for x in others if x.is_displayed()] in ([], [shown])
    assert max(took) < 100


def test_the_keyboard_alone_reaches_a_unit_and_runs_the_film(browser, pages):
    from selenium.webdriver.common.keys import Keys

    opened(browser, pages["explorer"], SIZES[0])
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_dom_attribute("href") == "#conv1"
    unit = browser.find_element("css selector", "a[href='#conv2-8']")
    browser.execute_script("arguments[0].focus()", unit)
    unit.send_keys(Keys.ENTER)
    assert browser.find_element("css selector", "#conv2-8").is_displayed()
    frames = browser.find_elements("css selector", ".film > div")
    assert [frame.is_displayed() for frame in frames] == [False, False, True]
    last = browser.find_element("css selector", "#frame-2")
    browser.execute_script("arguments[0].focus()", last)
    last.send_keys(Keys.ARROW_LEFT)
    assert [frame.is_displayed() for frame in frames] == [False, True, False]
