"""Progress of something long: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from sslflow import stagelog


class Progress:
    """`Progress("pretrain simclr", 20000, "step")`; `say(1200, "loss 1.93")` prints
    `pretrain simclr  step 1200/20000  loss 1.93  eta 14m` or moves the bar."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit, self.first = label, total, unit, done
        self.started = time.monotonic()
        self.bar = tqdm(total=total, initial=done, desc=label, unit=unit, disable=not sys.stdout.isatty(), leave=False)

    def say(self, done: int, text: str = "") -> None:
        """Show that `done` of the total are done."""
        each = (time.monotonic() - self.started) / max(1, done - self.first)
        left = each * (self.total - done)
        if stagelog.current:
            stagelog.current.progress(done, self.total, self.unit, 1 / max(each, 1e-9), left, text)
        if not self.bar.disable:
            self.bar.set_postfix_str(text)
            self.bar.update(done - self.bar.n)
            return
        parts = (self.label, f"{self.unit} {done}/{self.total}", text, f"eta {duration(left)}")
        print("  ".join(part for part in parts if part), flush=True)

    def note(self, done: int, text: str) -> None:
        """Print a line that stays, on a terminal too: above the bar."""
        self.bar.write("  ".join((self.label, f"{self.unit} {done}/{self.total}", text)), file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()


def duration(seconds: float) -> str:
    """`45s`, `14m`, `3h05m`."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 90 else f"{minutes // 60}h{minutes % 60:02d}m"
