"""How long a report takes to open: `python -m benchmarks.opening artifacts/report/index.html`.

Seconds from asking Chromium for the page until its map is drawn, in several openings, each by a browser of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

PORT = 9333
PATIENCE = 30.0
DRAWN = """(() => {
  const canvas = document.getElementById("map-canvas");
  if (document.readyState !== "complete" || !canvas || !canvas.width) return 0;
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let i = 3; i < pixels.length; i += 4) if (pixels[i]) return performance.now();
  return 0;
})()"""
"""Milliseconds since the page was asked for, once something stands on the map."""


async def called(connection: ClientConnection, method: str, **settings: Any) -> dict[str, Any]:
    """The browser's answer to a call of its debugging protocol."""
    await connection.send(json.dumps({"id": 1, "method": method, "params": settings}))
    while True:
        answer = json.loads(await connection.recv())
        if answer.get("id") == 1:
            return answer["result"]


def debugged() -> str:
    """The address at which the browser's page is debugged, as soon as there is one."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/json") as answer:
                return next(one["webSocketDebuggerUrl"] for one in json.load(answer) if one["type"] == "page")
        except (OSError, StopIteration):
            time.sleep(0.1)
    raise SystemExit("Chromium did not start")


async def opened(url: str, profile: str) -> float:
    """Seconds until the map of the page is drawn."""
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000", f"--user-data-dir={profile}")
    command = ["chromium", *options, f"--remote-debugging-port={PORT}", "--remote-allow-origins=*", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        async with connect(debugged(), max_size=None) as connection:
            await asyncio.sleep(1)
            await called(connection, "Page.navigate", url=url)
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                found = await called(connection, "Runtime.evaluate", expression=DRAWN)
                if milliseconds := found["result"].get("value"):
                    return milliseconds / 1000
                await asyncio.sleep(0.05)
        raise SystemExit(f"{url}: no map was drawn within {PATIENCE:g} s")
    finally:
        browser.kill()
        browser.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--times", type=int, default=6)
    asked = parser.parse_args()
    if not asked.page.is_file():
        raise SystemExit(f"{asked.page}: there is no such page; `dvc repro report` makes one")
    for _ in range(asked.times):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            print(f"{asyncio.run(opened(asked.page.resolve().as_uri(), profile)):.2f} s", flush=True)


if __name__ == "__main__":
    main()
