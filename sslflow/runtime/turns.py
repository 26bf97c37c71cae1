"""Work that several processes share piece by piece: each takes the next piece that no other has. Without `torchrun`
imports no torch."""

from __future__ import annotations

import os
from typing import Any


class Turns:
    """Which of the pieces, numbered from 0, are this process's. Machines of different speed end together, since nothing
    is dealt out before; who is killed leaves no more undone than he had under way."""

    def __init__(self) -> None:
        """Joins the processes that `torchrun` started, by the store in which they meet."""
        self.rank, self.count = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
        )
        self.on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._store = _store(self.rank, self.count) if self.count > 1 else None
        self._next = -1

    def mine(self, number: int) -> bool:
        """Whether the piece is this process's; asked of each, in order. Raises `RuntimeError` where the others can't be
        reached."""
        if self._store is None:
            return True
        while self._next < number:
            self._next = self._store.add("pieces", 1) - 1
        return self._next == number

    def done(self) -> None:
        """This process has ended its part."""
        if self._store is not None:
            self._store.add("done", 1)

    def others_done(self) -> bool:
        """Whether all others have, if there are any."""
        return self._store is None or self._store.add("done", 0) >= self.count - 1


def _store(number: int, count: int) -> Any:
    from torch.distributed.rendezvous import rendezvous

    from sslflow.runtime.distributed import of_this_start

    return of_this_start(next(iter(rendezvous("env://")))[0], number, count)
