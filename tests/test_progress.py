"""What is shown while much is stored: a bar where people look, and nothing elsewhere."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from types import SimpleNamespace

import dask
import numpy as np
import pytest
from processes import eventually

import daskps
from daskps import progress

MANY = 200  # bytes, where 100 count as much


class Terminal(io.StringIO):
    """Standard error of a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_once(monkeypatch):
    """Little is much, and little time is long."""
    monkeypatch.setattr(progress, "WORTH_SHOWING_NBYTES", 100)
    monkeypatch.setattr(progress, "SHOWN_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(progress, "DRAWN_EACH_SECONDS", 0.01)


@pytest.fixture
def terminal(at_once, monkeypatch):
    """What a terminal shows."""
    shown = Terminal()
    # Not of all modules: pytest has its own standard error between fixtures and tests.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=shown))
    return shown


def threads():
    """The threads that draw."""
    return [t for t in threading.enumerate() if t.name == "daskps-progress"]


class TestInATerminal:
    def test_bytes_are_shown_as_they_move(self, terminal):
        with progress.shown("Storing values", MANY), progress.part(MANY):
            progress.moved(50)
            assert eventually(lambda: "25%  50 B of 200 B" in terminal.getvalue())
            progress.moved(1000)  # a writer that began anew
        text = terminal.getvalue()
        assert "daskps: Storing values" in text
        assert "100%  200 B of 200 B" in text
        assert text.endswith("\n"), "the line is complete"
        assert not threads()

    def test_objects_that_are_found_count(self, terminal, caplog):
        with caplog.at_level(logging.INFO), progress.shown("Storing values", MANY):
            for _ in range(2):
                with progress.part(100):
                    pass
        assert "has ended: 2 objects, 200 B, " in caplog.text

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_it_ends_with_an_error(self, terminal, error):
        def work():
            with contextlib.suppress(OSError), progress.part(100):
                raise OSError
            assert eventually(lambda: "0 B of 200 B" in terminal.getvalue())
            raise error

        with pytest.raises(error), progress.shown("Storing values", MANY):
            work()
        assert terminal.getvalue().endswith("\n")
        assert not threads()
        progress.moved(1)  # what comes late is of no interest

    def test_there_is_one_at_a_time(self, terminal):
        with (
            progress.shown("Storing values", MANY),
            progress.shown("Reading a result", MANY),
        ):
            assert len(threads()) == 1
        assert "Reading" not in terminal.getvalue()

    def test_a_terminal_that_is_gone_is_no_error(self, terminal):
        with progress.shown("Storing values", MANY):
            assert eventually(terminal.getvalue)
            terminal.close()
            with progress.part(100):
                pass
            assert eventually(lambda: not threads())


class TestNothingIsShown:
    def test_of_what_is_little(self, terminal):
        with progress.shown("Storing values", 99):
            assert not threads()
        assert not terminal.getvalue()

    def test_of_what_takes_no_time(self, terminal, monkeypatch):
        monkeypatch.setattr(progress, "SHOWN_AFTER_SECONDS", 600.0)
        with progress.shown("Storing values", MANY):
            assert threads()
        assert not terminal.getvalue()
        assert not threads(), "and nobody waits for it"

    def test_if_it_is_off(self, terminal):
        with (
            dask.config.set({"daskps.progress": False}),
            progress.shown("Storing values", MANY),
        ):
            assert not threads()

    def test_in_a_pipe(self, at_once, monkeypatch):
        for stderr in io.StringIO(), None:
            monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stderr))
            with progress.shown("Storing values", MANY):
                assert not threads()

    def test_in_tasks(self, at_once, client):
        assert client.submit(drawing_in_task).result() == 0


def drawing_in_task():
    sys.stderr, stderr = Terminal(), sys.stderr
    try:
        with progress.shown("Storing values", 1 << 40):
            return len(threads())
    finally:
        sys.stderr = stderr


@pytest.mark.parametrize("value", ["yes", 1])
def test_a_bad_setting_is_an_error_when_a_session_begins(value):
    with (
        dask.config.set({"daskps.progress": value}),
        pytest.raises(daskps.ConfigError, match=r"daskps\.progress.*True, False"),
        daskps.proxy_graph(),
    ):
        pass


def test_explaining_shows_how_far_it_is(terminal):
    values = [np.full(1 << 17, i) for i in range(3)]
    found = daskps.explain([dask.delayed(len)(value) for value in values])
    assert len(found) == 3
    assert "Looking at values" in terminal.getvalue()
    assert "100%  3.00 MiB of 3.0" in terminal.getvalue()


def test_before_it_is_known_how_much_there_is(terminal):
    with progress.shown("Looking at values", None):
        assert eventually(lambda: "  0%" in terminal.getvalue())
        progress.expect(MANY)
        progress.expect(1)
        progress.done(MANY // 2)
        assert eventually(lambda: " 50%" in terminal.getvalue())


def test_of_nothing_large_the_log_says_nothing(terminal, caplog):
    with caplog.at_level(logging.INFO, "daskps"):
        assert not len(daskps.explain(dask.delayed(len)([1, 2])))
    assert not caplog.text


X = np.arange(1 << 18, dtype="f8")  # 2 MiB


def test_what_is_stored_and_scattered_is_counted(client, terminal, caplog):
    check_counts(client, "shm://", terminal, caplog)


def test_what_goes_from_host_to_host_is_counted(own_cluster, terminal, caplog):
    with own_cluster.client() as client:
        check_counts(client, "peer://", terminal, caplog)


def check_counts(client, store, terminal, caplog):
    with daskps.proxy_graph(store=store), caplog.at_level(logging.INFO, "daskps"):
        future = client.submit(np.add, X, 1)
        assert (future.result() == X + 1).all()
        scattered = client.scatter(X + 2)
        assert (scattered.result() == X + 2).all()
        client.publish_dataset(X + 3, name="three")
        assert (client.get_dataset("three") == X + 3).all()
        client.unpublish_dataset("three")
        assert set(client.run(len, X + 4).values()) == {len(X)}
        del future, scattered
    lines = [r.getMessage() for r in caplog.records if r.name == "daskps.progress"]
    # The graph of what is scattered follows.
    stored = [line for line in lines if line.startswith("Storing values has ended: 1 ")]
    assert len(stored) >= 4
    assert any(
        line.startswith("Reading a result has ended: 1 objects") for line in lines
    )
    assert "100%  2.00 MiB of 2.00 MiB" in terminal.getvalue()


CELL = """
from daskps import progress
progress.WORTH_SHOWING_NBYTES = 1
progress.SHOWN_AFTER_SECONDS = 0.0
import distributed, time
with progress.shown("Storing values", 200), progress.part(200):
    time.sleep(0.5)
"""


def test_a_notebook_shows_a_bar_in_its_cell():
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(CELL), nbformat.v4.new_code_cell("1")]
    nbclient.NotebookClient(book, timeout=300).execute()
    first, second = (cell.outputs for cell in book.cells)
    (shown,) = [output for output in first if output.output_type == "display_data"]
    assert "<progress value='200' max='200'>" in shown.data["text/html"]
    assert "200 B of 200 B" in shown.data["text/html"]
    assert [output.output_type for output in second] == ["execute_result"]
