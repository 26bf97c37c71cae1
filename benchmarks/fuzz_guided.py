"""Samples changed by libFuzzer, led by what of the readers' Python code has been reached; a process of its own, which
`benchmarks.fuzz` starts where atheris is installed: `python -m benchmarks.fuzz_guided KIND SECONDS`."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

INSTRUMENTED = ["sslflow", "nibabel", "pydicom", "tifffile"]
"""Packages whose branches are watched; they must not have been imported before."""
MEMORY_MB, LONGEST = 2048, 10


def main() -> None:
    """Ends the process itself, with 0, or another code where something was found."""
    atheris: Any = importlib.import_module("atheris")
    target, seconds = sys.argv[1], float(sys.argv[2])
    with atheris.instrument_imports(include=INSTRUMENTED):
        from benchmarks.fuzz_changes import NASTY
        from benchmarks.fuzz_kinds import TARGETS, file, folder
    samples, read, refusal = TARGETS[target]
    for number, content in enumerate(samples()):
        file(f"corpus/{number}", content)
    words = (word.encode("utf-8", "surrogatepass") for word in NASTY if word)
    lines = ("".join(f"\\x{byte:02x}" for byte in word[:64]) for word in words)
    dictionary = file("words", "".join(f'"{line}"\n' for line in lines).encode())

    def once(content: bytes) -> None:
        with contextlib.suppress(refusal):
            read(content)

    options = {
        "max_total_time": round(seconds), "timeout": LONGEST, "rss_limit_mb": MEMORY_MB, "print_final_stats": 1,
        "dict": dictionary, "artifact_prefix": f"{folder()}/",
    }  # fmt: skip
    given = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *given, str(folder() / "corpus")], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
