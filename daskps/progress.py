"""How far the work is that takes long: a bar, and a line in the log. Runs on the client.

There is one bar at a time in a process. What moves bytes says so by :func:`moved`, within
the :func:`part` that is one object; nobody has to be told whether anybody looks.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import dask
from dask.utils import format_bytes, format_time

from daskps.config import flag
from daskps.lazy import loaded

logger = logging.getLogger(__name__)

SETTING = "daskps.progress"
#: What most of it is.
STORING = "Storing values"
# Less (bytes) is done before anybody would look.
WORTH_SHOWING_NBYTES = 100_000_000
# What takes less time (seconds) shows nothing.
SHOWN_AFTER_SECONDS = 2.0
DRAWN_EACH_SECONDS = 0.2

#: Shows the state at the moment.
Draw: TypeAlias = Callable[[], None]


class Progress:
    """How far one piece of work is. Use :func:`shown`.

    Parameters
    ----------
    doing
        What is done, for people: ``"Storing values"``.
    total
        How much there is to do (bytes), about; 0: that is not known yet.

    Attributes
    ----------
    done
        Bytes of that, at most `total`.
    objects
        How many objects are done.

    Notes
    -----
    Thread-safe.
    """

    doing: str
    total: int
    done: int
    objects: int

    def __init__(self, doing: str, total: int):
        self.doing = doing
        self.total = total
        self.done = 0
        self.objects = 0
        self._lock = threading.Lock()

    def add(self, nbytes: int, objects: int = 0) -> None:
        """So much more is done."""
        with self._lock:
            # The total is an estimate.
            self.done = min(self.total, self.done + nbytes)
            self.objects += objects

    def __str__(self) -> str:
        if not self.total:
            return ""
        return f"{format_bytes(self.done)} of {format_bytes(self.total)}"


#: What is shown now.
_current: Progress | None = None
_one_at_a_time = threading.Lock()
_here = threading.local()


@contextlib.contextmanager
def shown(doing: str, total: int | None) -> Iterator[None]:
    """Show how far the work of a block is, if it is much and takes long.

    Parameters
    ----------
    doing
        What is done, for people.
    total
        How much there is to do (bytes), about. None: it may be much, and the block says so
        by :func:`expect`.

    Raises
    ------
    daskps.exceptions.ConfigError
        If ``daskps.progress`` is not valid, and there is much to do.
    """
    global _current
    is_little = total is not None and total < WORTH_SHOWING_NBYTES
    if is_little or not _one_at_a_time.acquire(blocking=False):
        yield
        return
    try:
        progress = _current = Progress(doing, total or 0)
        began = time.perf_counter()
        with _drawn(progress, _display()):
            yield
    finally:
        _current = None
        _one_at_a_time.release()
    if not progress.total:
        return
    logger.info(
        "%s has ended: %d objects, %s, %s",
        doing,
        progress.objects,
        format_bytes(progress.done),
        format_time(time.perf_counter() - began),
    )


def expect(nbytes: int) -> None:
    """There are so many bytes to do, if that was not known yet."""
    if _current is not None and not _current.total:
        _current.total = nbytes


def part(nbytes: int) -> AbstractContextManager[None]:
    """Count one object of so many bytes, which is done at the end of the block."""
    return nullcontext() if _current is None else _counted(_current, nbytes)


@contextlib.contextmanager
def _counted(progress: Progress, nbytes: int) -> Iterator[None]:
    left = nbytes

    def add(n: int) -> None:
        # Who moves bytes may begin anew.
        nonlocal left
        n = min(n, left)
        left -= n
        progress.add(n)

    _here.add = add
    try:
        yield
    finally:
        del _here.add
    progress.add(left, objects=1)


def done(nbytes: int, objects: int = 1) -> None:
    """So many more bytes are done, of none of the parts."""
    if _current is not None:
        _current.add(nbytes, objects)


def moved(nbytes: int) -> None:
    """So many bytes of this thread's object are where they should be."""
    add = getattr(_here, "add", None)
    if add is not None:
        add(nbytes)


def _display() -> Callable[[Progress], AbstractContextManager[Draw]] | None:
    """Where a bar can be seen; None: nowhere."""
    if not flag(SETTING, dask.config.get(SETTING)):
        return None
    # Processes that others have started, and tasks, are many that share a terminal.
    if multiprocessing.parent_process() is not None or _in_task():
        return None
    if _is_notebook():
        return _in_notebook
    isatty = getattr(sys.stderr, "isatty", None)
    return _in_terminal if isatty is not None and isatty() else None


def _in_task() -> bool:
    distributed = loaded("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def _is_notebook() -> bool:
    distributed = loaded("distributed.utils")
    return distributed is not None and bool(distributed.is_kernel())


@contextlib.contextmanager
def _drawn(
    progress: Progress,
    display: Callable[[Progress], AbstractContextManager[Draw]] | None,
) -> Iterator[None]:
    """Have a thread draw it, while this one works."""
    if display is None:
        yield
        return
    ended = threading.Event()
    # A notebook knows from the context to which cell an output belongs.
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run,
        args=(_draw, progress, display, ended),
        name="daskps-progress",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _draw(
    progress: Progress,
    display: Callable[[Progress], AbstractContextManager[Draw]],
    ended: threading.Event,
) -> None:
    if ended.wait(SHOWN_AFTER_SECONDS):
        return
    try:
        with display(progress) as draw:
            draw()
            while not ended.wait(DRAWN_EACH_SECONDS):
                draw()
            draw()
    except Exception as e:
        # A terminal that is gone is no reason for the work to fail.
        logger.debug("Nothing is shown any more: %r", e)


@contextlib.contextmanager
def _in_terminal(progress: Progress) -> Iterator[Draw]:
    import click

    bar: Any = click.progressbar(
        length=1,
        label=f"daskps: {progress.doing}",
        show_eta=False,
        item_show_func=lambda _: str(progress),
        width=30,
        file=sys.stderr,
    )

    def draw() -> None:
        bar.length = max(1, progress.total)
        bar.update(progress.done - bar.pos)

    with bar:
        yield draw


@contextlib.contextmanager
def _in_notebook(progress: Progress) -> Iterator[Draw]:
    from IPython.display import HTML, display

    def state() -> Any:
        far = (
            f"value='{progress.done}' max='{progress.total}'" if progress.total else ""
        )
        return HTML(f"daskps: {progress.doing} <progress {far}></progress> {progress}")

    handle = display(state(), display_id=True)
    yield lambda: handle.update(state())
