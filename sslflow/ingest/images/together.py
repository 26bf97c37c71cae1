"""Images examined by several processes, on one machine or many, and by one that goes on where another was stopped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from pathlib import Path

from sslflow.ingest.images.examine import Examined, Work, pool
from sslflow.ingest.images.parts import Parts, examine_into
from sslflow.ingest.records import Record, Rejected
from sslflow.runtime.turns import Turns

_WINDOW = 2
"""Tasks a worker that are under way: one that it is at work on, and one that it finds when it has done."""
_LOOK_EVERY = 0.1


class Together:
    """Examines as `examine_all` does, what it finds lying in a folder meanwhile.

    Tasks are taken in turns. The first process yields everything, in the order of the tasks, whoever examined it; what
    the others have not left where it can be seen when they end, it examines itself. The others yield nothing.
    """

    def __init__(self, root: Path, turns: Turns) -> None:
        """`root`: a folder that all processes see, and that holds nothing else."""
        self.root, self.turns = root, turns
        self.before = self.unseen = 0
        """Images that a run which was stopped had examined, and those that others examined and nobody can find."""
        self._parts: Parts | None = None

    def examine_all(
        self, tasks: Iterable[list[Record]], work: Work, workers: int, max_pixels: int
    ) -> Generator[Examined | Rejected, None, None]:
        """Close the generator to be sure that no process outlives it. Raises `ValueError` when a process is killed."""
        parts = self._parts = Parts(self.root, work, tidy=self.turns.rank == 0)
        job = partial(examine_into, work=work, folder=parts.folder)
        waiting: deque[tuple[bytes, list[Record]]] = deque()
        under_way: dict[Future[None], list[Record]] = {}

        def collect(limit: float | None = None) -> None:
            done = wait(under_way, limit, FIRST_COMPLETED).done
            for future in done:
                future.result()
                del under_way[future]
            parts.look()

        def fetched() -> Generator[Examined | Rejected, None, None]:
            while waiting and waiting[0][0] in parts:
                key, records = waiting[0]
                found = parts.fetch(key)
                if found is None:
                    under_way[submit(job, records, key)] = records
                    return
                waiting.popleft()
                self.before += len(records) if key in parts.before else 0
                yield from found

        with pool(workers, max_pixels, lambda: [one for own in under_way.values() for one in own]) as submit:
            for number, records in enumerate(tasks):
                key = parts.key(records)
                if self.turns.rank == 0:
                    waiting.append((key, records))
                if self.turns.mine(number) and key not in parts:
                    under_way[submit(job, records, key)] = records
                while len(under_way) >= _WINDOW * workers:
                    collect()
                yield from fetched()
            while waiting:
                ended = self.turns.others_done()
                if under_way:
                    collect(_LOOK_EVERY)
                else:
                    parts.look()
                yield from fetched()
                if waiting and not under_way and ended:
                    key, records = waiting[0]
                    self.unseen += len(records)
                    under_way[submit(job, records, key)] = records
                elif waiting and not under_way:
                    time.sleep(_LOOK_EVERY)
            while under_way:
                collect()
        self.turns.done()

    def told(self) -> Iterator[str]:
        """Lines on what came otherwise than by this process's own work."""
        if self.before:
            yield f"prepare  {self.before:,} images had been decoded already, by a run that was stopped"
        if self.unseen:
            yield (
                f"warning: {self.unseen:,} images that other processes had taken were decoded by the first one, since "
                f"nothing of them lies in {self.root}: all machines need the same folder of the project, the same "
                "versions of sslflow, Pillow and NumPy, and the same files in data.path with the same times"
            )

    def remove(self) -> None:
        """What lies in the folder, once it has served."""
        if self._parts is not None:
            self._parts.remove()
