"""Known vulnerabilities of the pinned packages, by pip-audit where it is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "constraints.txt"
NO_NETWORK = (
    "ConnectionError",
    "Max retries",
    "Name or service",
    "Failed to resolve",
    "timed out",
    "ProxyError",
    "403",
)
SKIPPED = "could not be audited"
LONGEST = 120


def main() -> int:
    """0, with a sentence, where nothing is known, or nothing can be asked; 1 where something is known."""
    if importlib.util.find_spec("pip_audit") is None:
        print("vulnerabilities: not looked for: `pip install pip-audit`, which asks PyPI, would")
        return 0
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "-r",
        str(PINS),
        "--no-deps",
        "--disable-pip",
        "--progress-spinner=off",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        print(f"vulnerabilities: not looked for: PyPI gave no answer within {LONGEST} s")
        return 0
    return verdict(done.returncode, done.stdout, done.stderr)


def verdict(code: int, found: str, said: str) -> int:
    """What pip-audit's answer means, in a line or a table."""
    if code and not found.strip():
        offline = any(word in said for word in NO_NETWORK)
        why = "PyPI can't be reached" if offline else " ".join(said.split())[-300:]
        print(f"vulnerabilities: not looked for: {why}")
        return 0 if offline else 1
    skipped, pinned = found.count(SKIPPED), PINS.read_text(encoding="utf-8").count("==")
    if not code and skipped >= pinned:
        print("vulnerabilities: not looked for: the index that is set for pip knows of none; PyPI itself does")
        return 0
    if not code and skipped:
        print(f"vulnerabilities: none known, but {skipped} packages could not be looked up: the index may be a mirror")
        return 0
    print(found.strip() or "vulnerabilities: none known of the packages in constraints.txt")
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
