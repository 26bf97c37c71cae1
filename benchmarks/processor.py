"""What the processor has done, by the system's own account."""

from __future__ import annotations

import resource


def used() -> float:
    """Seconds of the processor, of this process and of those that it has waited for."""
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))
