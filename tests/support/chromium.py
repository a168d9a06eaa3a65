"""A real browser, driven by the Chrome DevTools Protocol over its own WebSocket: no driver besides."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from support.process import Program, require
from support.until import PATIENCE, wait_until

MOST = 256 * 1024 * 1024  # bytes of one answer: a screenshot of a long page


class Browser:
    """One headless Chromium with one tab."""

    def __init__(self, directory: Path) -> None:
        (program,) = require("chromium")
        profile = directory / "profile"
        flags = "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-dev-shm-usage"
        port = "--remote-debugging-port=0"
        argv = [program, *flags.split(), port, f"--user-data-dir={profile}", "about:blank"]
        self._program = Program("chromium", argv, directory, env={"HOME": str(directory)})
        told = profile / "DevToolsActivePort"
        wait_until(lambda: told.exists() and len(told.read_text().splitlines()) == 2, self._program.tail)
        number, path = told.read_text().splitlines()
        self._socket = connect(f"ws://127.0.0.1:{number}{path}", max_size=MOST, open_timeout=PATIENCE, proxy=None)
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; events that come meanwhile are kept. Raises AssertionError for a refusal."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            answer = json.loads(self._socket.recv(timeout=PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self.events.append(answer)

    def show(self, url: str, width: int = 1280, *, dark: bool = False, scripts: bool = True, media: str = "") -> None:
        """Opens a page in a window of that width, and waits until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=url)
        wait_until(lambda: self.call("Runtime.evaluate", expression="1") and self._loaded(), f"{url} is shown")

    def _loaded(self) -> bool:
        return any(event.get("method") == "Page.loadEventFired" for event in self.events)

    def run(self, script: str) -> Any:
        """The value of an expression in the page, that of a promise when it has come."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key that is no letter, pressed and let go."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def complaints(self) -> list[str]:
        """What the browser has against the page: refused by its policy, errors of its script."""
        self.run("1")
        said = [event["params"] for event in self.events if event.get("method") == "Log.entryAdded"]
        thrown = [str(event) for event in self.events if event.get("method") == "Runtime.exceptionThrown"]
        return [one["entry"]["text"] for one in said if one["entry"]["level"] == "error"] + thrown

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12000), "scale": 1}
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        self._socket.close()
        self._program.stop()
