"""Work spread over processes: results in the order of the tasks, and few tasks in memory however many there are.

Processes of our own and not `concurrent.futures`: a worker ends when its parent is gone, and one that is told to end
may finish the file it is at.
"""

from __future__ import annotations

from contextlib import closing
from itertools import chain, islice

from emupin.base.errors import EmupinError
from emupin.base.interruption import InterruptedBySignal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess
    from typing import Any, TypeVar

    Task = TypeVar("Task")
    Result = TypeVar("Result")

WINDOW = 4
"""Tasks per process that may be under way, or done and waiting for an earlier one."""


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int) -> Generator[Result, None, None]:
    """The result of `work` for each of `tasks`, which are taken as late as possible.

    In this process where one is enough: with a single task, or a single job. Raises EmupinError where a process dies.
    """
    tasks = iter(tasks)
    first = list(islice(tasks, 2)) if jobs > 1 else []
    tasks = chain(first, tasks)
    if len(first) < 2:
        yield from map(work, tasks)
        return
    with closing(_Crew(work, jobs)) as crew:
        yield from crew.results(tasks)


class _Crew:
    """Processes that are started when they are needed; each has at most one task at a time, so no pipe can clog."""

    def __init__(self, work: Callable[[Any], Any], jobs: int) -> None:
        self.work, self.jobs = work, jobs
        self.processes: list[ForkProcess] = []
        self.pipes: list[Connection] = []
        self.idle: list[Connection] = []
        self.busy: dict[Connection, int] = {}
        self.done: dict[int, Any] = {}
        self.given = 0
        self.taken = 0

    def results(self, tasks: Iterator[Any]) -> Iterator[Any]:
        while True:
            self.give(tasks)
            while self.taken in self.done:
                yield self.done.pop(self.taken)
                self.taken += 1
            if self.taken == self.given and not self.give(tasks):
                return
            self.collect()

    def give(self, tasks: Iterator[Any]) -> bool:
        """Hand out tasks while there are any, hands for them, and room in the window; whether one was."""
        given = self.given
        while self.given - self.taken < WINDOW * self.jobs and (self.idle or len(self.processes) < self.jobs):
            for task in islice(tasks, 1):
                pipe = self.idle.pop() if self.idle else self.start()
                pipe.send(task)
                self.busy[pipe] = self.given
                self.given += 1
                break
            else:
                break
        return self.given > given

    def collect(self) -> None:
        """Wait for at least one result."""
        from multiprocessing.connection import wait

        ready = wait(list(self.busy))
        for pipe in [pipe for pipe in self.busy if pipe in ready]:
            try:
                self.done[self.busy.pop(pipe)] = pipe.recv()
            except (EOFError, ConnectionResetError):
                raise EmupinError("", "a worker process ended early", "it was killed? run the command again") from None
            self.idle.append(pipe)

    def start(self) -> Connection:
        from multiprocessing import get_context

        context = get_context("fork")
        ours, theirs = context.Pipe()
        self.pipes.append(ours)
        process = context.Process(target=_serve, args=(self.work, theirs, self.pipes), daemon=True)
        process.start()
        theirs.close()
        self.processes.append(process)
        return ours

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            if self.busy:
                process.terminate()
            process.join()


def _serve(work: Callable[[Task], Result], pipe: Connection, parents: list[Connection]) -> None:
    """Work until the parent closes its end, or is gone; for that to be seen here its ends must be closed here."""
    for other in parents:
        other.close()
    while True:
        try:
            pipe.send(work(pipe.recv()))
        except (EOFError, BrokenPipeError, ConnectionResetError, InterruptedBySignal):
            return
