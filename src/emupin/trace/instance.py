"""A tracefs instance of our own: a ring buffer that nobody else uses, made for one trace and removed after it.

Its name says who made it, `emupin-PID-START`: what a killed run left behind is found by the next one. It stops itself
as soon as its maker is gone, by a trigger in the kernel, so that a leftover costs nothing until then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import TYPE_CHECKING

from emupin.base.files import read_bytes
from emupin.trace import events, filter
from emupin.trace.tracefs import find, trouble

if TYPE_CHECKING:
    from typing_extensions import Self

    from emupin.trace.events import Event

NAME = re.compile(r"emupin-(\d+)-(\d+)")
KIB = 1024
MOST_MEMORY = 64 * KIB
"""KiB of all buffers together, if that does not make them smaller than SMALLEST."""
LARGEST, SMALLEST = 512, 64
"""KiB of one CPU's buffer: 7,500 events, which a CPU that switches 70,000 times a second fills in a tenth of one."""
START_TIME = 19
"""Of the fields of `stat` behind the last `)`: the 22nd of them all."""
EVENTS = ("sched/sched_switch", "sched/sched_waking")


class Instance:
    """Records while it is entered. Raises TraceError wherever the kernel does not let it."""

    def __init__(self, root: str, tids: frozenset[int], whole: frozenset[int], cpus: frozenset[int]) -> None:
        """Record switches of the threads `tids`, all on the CPUs `whole`, and wakings; read from the CPUs `cpus`."""
        self.root, self.tids, self.whole, self.cpus = root, tids, whole, cpus
        self.tracefs = find(root)
        self.folder = f"{self.tracefs}/instances/emupin-{os.getpid()}-{started(root, os.getpid())}"
        self.pipes: dict[int, int] = {}
        """File descriptors by CPU."""

    def __enter__(self) -> Self:
        try:
            sweep(self.root, self.tracefs)
            os.mkdir(self.folder)
        except OSError as error:
            raise trouble(self.root, self.folder, error) from None
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set_up(self) -> None:
        self._write("tracing_on", "0")
        self._write("trace_clock", "mono")
        self._size_buffers()
        self.layout = events.layout(
            self._text("../../events/header_page"), *(self._text(f"events/{name}/format") for name in EVENTS)
        )
        self._write(
            "events/sched/sched_process_exit/trigger", f"disable_event:sched:sched_switch if pid=={os.getpid()}"
        )
        for name, wanted in zip(EVENTS, (filter.switches(self.tids, self.whole), filter.wakings(self.tids))):
            self._write(f"events/{name}/filter", wanted)
            self._write(f"events/{name}/enable", "1")
        self._open_pipes()
        self._write("tracing_on", "1")

    def _size_buffers(self) -> None:
        """Small ones everywhere, larger ones where the vCPUs are."""
        self._write("buffer_size_kb", str(SMALLEST))
        size = max(min(LARGEST, MOST_MEMORY // max(len(self.whole), 1)), SMALLEST)
        for cpu in self.whole if size > SMALLEST else ():
            if os.path.isdir(f"{self.folder}/per_cpu/cpu{cpu}"):
                self._write(f"per_cpu/cpu{cpu}/buffer_size_kb", str(size))

    def _open_pipes(self) -> None:
        for cpu in self.cpus:
            path = f"{self.folder}/per_cpu/cpu{cpu}/trace_pipe_raw"
            try:
                self.pipes[cpu] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # A CPU that is offline.
            except OSError as error:
                raise trouble(self.root, path, error) from None

    # -- while it records ---------------------------------------------------------------------------------------------

    def read(self) -> list[Event]:
        """What has come since the last time, of each CPU in its order."""
        found: list[Event] = []
        for cpu, descriptor in self.pipes.items():
            while page := self._page(descriptor):
                found.extend(events.read_page(page, cpu, self.layout))
        return found

    def _page(self, descriptor: int) -> bytes:
        """Empty where there is none yet."""
        try:
            return os.read(descriptor, self.layout.size)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise trouble(self.root, self.folder, error) from None

    def stop(self) -> None:
        self._write("tracing_on", "0")

    def now(self) -> int:
        """The trace's clock, nanoseconds; the kernel tells it to the microsecond."""
        cpu = next(iter(self.pipes))
        seconds, _, micros = self._stats(cpu)["now ts"].partition(".")
        return int(seconds) * 10**9 + int(micros) * 1000

    def lost(self) -> int:
        """Events that the buffers had no room for."""
        stats = [self._stats(cpu) for cpu in self.pipes]
        return sum(int(each[key]) for each in stats for key in ("overrun", "dropped events") if key in each)

    def _stats(self, cpu: int) -> dict[str, str]:
        lines = (line.partition(":") for line in self._text(f"per_cpu/cpu{cpu}/stats").splitlines())
        return {key.strip(): value.strip() for key, _, value in lines}

    # -- files --------------------------------------------------------------------------------------------------------

    def _write(self, name: str, text: str) -> None:
        path = f"{self.folder}/{name}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise trouble(self.root, path, error) from None

    def _text(self, name: str) -> str:
        path = f"{self.folder}/{name}"
        try:
            return read_bytes(path).decode()
        except OSError as error:
            raise trouble(self.root, path, error) from None

    def close(self) -> None:
        for descriptor in self.pipes.values():
            os.close(descriptor)
        self.pipes.clear()
        try:
            remove(self.folder)
        except OSError as error:
            raise trouble(self.root, self.folder, error) from None


def sweep(root: str, tracefs: str) -> None:
    """Remove the instances of runs that are no more."""
    for name in os.listdir(f"{tracefs}/instances"):
        found = NAME.fullmatch(name)
        if found and started(root, int(found[1])) != int(found[2]):
            _remove_unless_read(f"{tracefs}/instances/{name}")


def _remove_unless_read(folder: str) -> None:
    """Somebody may look at what is left; the next run will remove it."""
    try:
        remove(folder)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise


def remove(folder: str) -> None:
    """Remove an instance, with its buffers and events. Raises OSError where somebody still reads it."""
    with contextlib.suppress(FileNotFoundError):  # Another run was faster.
        os.rmdir(folder)


def started(root: str, pid: int) -> int | None:
    """When process `pid` was started, in clock ticks since the boot; None where there is none, or only its remains."""
    try:
        fields = read_bytes(f"{root}/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[START_TIME])
