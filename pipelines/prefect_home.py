"""What Prefect reads when it is imported: import this first. Its database lies in the project's scratch folder, and it
phones nowhere."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("PREFECT_HOME", str(Path("work/prefect").resolve()))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# Prefect makes no folder above its own, and warns.
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
