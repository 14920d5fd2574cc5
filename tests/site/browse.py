"""Opens the site in Chromium, without a screen, as a reader would. The command line names the book's directory.

Each page is shown at the width of a telephone and of a desk: it must not scroll sideways, its pictures are shown, and the
browser reports no error. The search must find what readers look for: error texts, statuses, options.
"""

import functools
import http.server
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

import errors
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

TELEPHONE, DESK = 360, 1280
# A loaded machine takes long to start the browser and to show a page.
PATIENCE = 60

# Results beyond these pages are not seen without scrolling.
SEEN = 5
# Of an error that a reader pastes, the explanation is one of the first results.
FIRST = 2
# What a reader types, and a page that has to be among those.
FAILURES, ERRORS, MIGRATING = "docs/failures.html", "docs/errors.html", "docs/migrating.html"
SEARCHES = {
    "DEADLINE_EXCEEDED": FAILURES,
    "RESOURCE_EXHAUSTED": FAILURES,
    "FAILED_PRECONDITION": FAILURES,
    "did not answer within": ERRORS,
    "broke the worker protocol": ERRORS,
    "returned an invalid document": ERRORS,
    "cannot use these documents": FAILURES,
    "prefix is not declared": ERRORS,
    "is not served here": ERRORS,
    "was killed by SIGKILL": ERRORS,
    "the request is compressed": FAILURES,
    "cannot start hook worker": ERRORS,
    "cannot listen on": FAILURES,
    "replacing a stale socket": FAILURES,
    "no hook API version": ERRORS,
    "the shim is shutting down": FAILURES,
    "exceeded a size limit": ERRORS,
    "its stderr is only in the log, because it may be about other VMs": FAILURES,
    "refused a connection": FAILURES,
    "the client went away": FAILURES,
    "argument list too long": MIGRATING,
    "queue-bytes": "docs/limits.html",
    "KUBEVIRT_HOOK_PROTOCOL": "protocol.html",
    "attachments": "protocol.html",
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that logs nothing."""

    def log_message(self, *_):
        """Does nothing."""


def serve(book):
    """Serves the book on loopback, and returns the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=book))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def browser():
    """Starts Chromium with Debian's driver."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument("--" + argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(PATIENCE)
    return driver


def resize(driver, width):
    """Sets the width of the page; a window cannot be as narrow."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == TELEPHONE}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


# What sticks out of the page. mdBook's style lets the part with the text scroll, which is as bad for the reader.
OVERFLOW = """
const scrolls = [document.documentElement, document.querySelector('.content')];
if (scrolls.every((it) => it.scrollWidth <= it.clientWidth)) return null;
const width = scrolls[1].getBoundingClientRect().right;
const wide = [...document.querySelectorAll('main *')].filter((it) => it.getBoundingClientRect().right > width
    && !it.closest('pre, .table-wrapper'));
return wide.slice(0, 3).map((it) => it.outerHTML.slice(0, 120)).join(' ');
"""
BROKEN_PICTURES = "return [...document.images].filter((it) => !it.complete || !it.naturalWidth).map((it) => it.src)"


def look_at(driver, address, names):
    """Yields the faults of pages."""
    pictures = 0
    for name in names:
        for width in (TELEPHONE, DESK):
            resize(driver, width)
            driver.get(f"{address}/{name}")
            if (overflow := driver.execute_script(OVERFLOW)) is not None:
                yield f"{name} scrolls sideways at {width} pixels: {overflow}"
            if broken := driver.execute_script(BROKEN_PICTURES):
                yield f"{name} has pictures that are not shown: {broken}"
            for entry in driver.get_log("browser"):
                yield f"{name}: {entry['level']}: {entry['message']}"
        pictures += driver.execute_script("return document.images.length")
    if pictures < 4:
        yield f"only {pictures} pictures in the whole site"


def search(driver, address, text):
    """Types a text into the search, and returns the results: pages with an anchor."""
    driver.get(f"{address}/index.html?search={quote(text)}")
    found = "return document.querySelector('#mdbook-searchresults-header, #searchresults-header').textContent"
    WebDriverWait(driver, PATIENCE).until(lambda it: "result" in it.execute_script(found))
    links = driver.find_elements(By.CSS_SELECTOR, "#mdbook-searchresults a, #searchresults a")
    results = [link.get_attribute("href").removeprefix(address + "/") for link in links]
    return [result.partition("?")[0] + "#" + result.partition("#")[2] for result in results]


def searches(driver, address):
    """Yields texts that the search does not answer."""
    resize(driver, DESK)
    for text, page in SEARCHES.items():
        results = list(dict.fromkeys(result.partition("#")[0] for result in search(driver, address, text)))
        if page not in results[:SEEN]:
            yield f"the search for “{text}” does not lead to {page}: {results[:SEEN]}"
    with tempfile.TemporaryDirectory() as directory:
        pastes, faults = errors.pasted(Path(directory))
    yield from faults
    for text, section in pastes.items():
        results = search(driver, address, text)
        if f"docs/errors.html#{section}" not in results[:FIRST]:
            yield f"the search for “{text}” does not lead to {section}: {results[:SEEN]}"
    print(f"{len(pastes)} errors were made and searched for")
    if results := search(driver, address, "xyzzyplugh"):
        yield f"the search finds what is not there: {results}"


def dark(driver, address):
    """Yields a fault if a reader with a dark desktop gets a light page."""
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get(f"{address}/index.html")
    color = driver.execute_script("return getComputedStyle(document.body).backgroundColor + ' ' + document.documentElement.className")
    if "navy" not in color:
        yield f"no dark mode: {color}"


def main():
    """Tries the book."""
    book = Path(sys.argv[1]).resolve()
    names = sorted(str(file.relative_to(book)) for file in book.rglob("*.html"))
    names = [name for name in names if name not in ("print.html", "toc.html", "404.html") and not name.startswith("sources/")]
    started, address, driver = time.monotonic(), serve(book), browser()
    try:
        faults = [*look_at(driver, address, names), *searches(driver, address), *dark(driver, address)]
    finally:
        driver.quit()
    print("\n".join(faults))
    if faults or len(names) < 20:
        sys.exit(f"{len(faults)} faults in {len(names)} pages")
    print(f"{len(names)} pages and {len(SEARCHES)} searches in {time.monotonic() - started:.0f} s")


main()
