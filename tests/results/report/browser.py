"""A few calls of the WebDriver protocol to a headless Chromium: enough to open a page, click and look."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


class Browser:
    def __init__(self, base: str) -> None:
        self.base = base
        options = {
            "binary": CHROMIUM,
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        value = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}}, root=True)
        self.session = value["sessionId"]

    def _call(self, method: str, path: str, body=None, root: bool = False):
        url = self.base + (path if root else f"/session/{self.session}{path}")
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def open(self, path) -> None:
        self._call("POST", "/url", {"url": path.resolve().as_uri()})
        for _ in range(100):
            if self.run("return document.documentElement.dataset.ready === 'yes'"):
                return
            time.sleep(0.1)
        raise AssertionError(f"the page never became ready: {self.log('browser')}")

    def run(self, script: str, *arguments):
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def log(self, kind: str) -> list[dict]:
        return self._call("POST", "/se/log", {"type": kind})

    def cdp(self, command: str, **parameters):
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width: int, height: int = 900) -> None:
        mobile = width < 600
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        time.sleep(0.4)  # the page redraws its plots a moment after a change of width

    def dark(self, on: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path, *, full: bool = False) -> None:
        answer = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(answer["data"]))

    def quit(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self._call("DELETE", "")


@contextlib.contextmanager
def headless():
    """A browser that is gone at the end, with its driver."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    browser = None
    try:
        for _ in range(100):
            try:
                browser = Browser(f"http://127.0.0.1:{port}")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        assert browser is not None, "chromedriver does not answer"
        yield browser
    finally:
        if browser is not None:
            browser.quit()
        driver.terminate()
        driver.wait()
