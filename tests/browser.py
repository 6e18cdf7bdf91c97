"""A headless Chromium, driven over its debugging pipe: JSON messages that end in a NUL byte, on descriptors 3 and 4."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--disable-extensions", "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe",
)  # fmt: skip

PLUG = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Puts the pipe's ends where Chromium expects them; in the process of the tests other files are there."""

SECONDS = 60.0


class Browser:
    """One Chromium with one page. `requests` are all that the page asked for."""

    def __init__(self, profile: Path) -> None:
        assert PROGRAM
        reading, for_browser = os.pipe()
        from_us, self.writing = os.pipe()
        self.reading = reading
        command = [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (from_us, for_browser)]
        environment = {**os.environ, "HOME": str(profile)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PLUG, *map(str, ends), *command],
            pass_fds=ends,
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for end in (from_us, for_browser, *ends):
            os.close(end)
        self.buffer = b""
        self.number = 0
        self.session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        pages = self.send("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        os.close(self.writing)
        os.close(self.reading)
        self.process.terminate()
        self.process.wait(10)

    def send(self, method: str, **parameters: Any) -> Any:
        """What a method of the debugging protocol answers."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reading], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self.reading, 1 << 20) if ready else b""
            assert data, "the browser does not answer"
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif event["method"] == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif event["method"] == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {parameters['message']}")

    def open(self, path: Path, fragment: str = "") -> float:
        """Open a file; the seconds until the page says that it is ready."""
        start = time.monotonic()
        self.send("Page.navigate", url=f"file://{path}{fragment}")
        while time.monotonic() < start + SECONDS:
            if self.run("document.documentElement?.dataset.ready ?? ''") == "yes":
                return time.monotonic() - start
            time.sleep(0.02)
        raise AssertionError(f"the page is not ready: {self.complaints}")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What stands in the first element that fits, as it is seen."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def go(self, fragment: str) -> None:
        """Change the address's fragment, and wait until the page has taken notice."""
        self.run(f"location.hash = {json.dumps(fragment)}; new Promise((done) => setTimeout(done, 30))")

    def press(self, key: str) -> None:
        codes = {"Enter": 13, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40, "PageDown": 34}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def look(self, width: int, height: int, scheme: str = "light", media: str = "") -> None:
        """Set the window's size, and what the page is told of its medium."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def screenshot(self, path: Path, whole: bool = False) -> None:
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        return base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"])
