"""The double of pydaos has the traps of the real one."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time

import pytest
from daos_pool import pool, run, start
from processes import PATIENCE

__all__ = ["pool"]

OPEN = """
    import os, pickle, sys, pydaos
    container = pydaos.DCont("pool", "kvstore")
    try:
        d = container.get("d")
    except pydaos.DObjNotFound:
        d = container.dict("d")
"""


@pytest.fixture
def pydaos(pool):
    import pydaos

    return pydaos


@pytest.fixture
def container(pydaos):
    return pydaos.DCont("pool", "kvstore")


@pytest.fixture
def d(container):
    return container.dict("d")


class TestContainers:
    def test_that_are_not_there(self, pydaos):
        with pytest.raises(pydaos.PyDError, match="DER_NONEXIST"):
            pydaos.DCont("pool", "other")

    def test_a_dictionary_is_created_once(self, pydaos, container):
        with pytest.raises(pydaos.DObjNotFound, match="No such object: d"):
            container.get("d")
        container.dict("d", {"a": b"1"})
        assert container.get("d")["a"] == b"1"
        with pytest.raises(pydaos.PyDError, match="DER_EXIST"):
            container.dict("d")

    def test_an_error_that_follows_itself(self, pydaos):
        error = pydaos.DObjNotFound("d")
        with pytest.raises(RecursionError):
            repr(error)
        with pytest.raises(RecursionError):
            pickle.dumps(error)

    def test_is_seen_by_other_processes(self, d):
        assert run(OPEN + "    d.put('a', b'1')\n    del d, container") == (0, "")
        assert d.get("a") == b"1"

    def test_initialises_the_library_once(self, pydaos, container, d):
        pydaos.DCont("pool", "kvstore")
        assert pydaos.DaosClient.initialised == 1


class TestDictionaries:
    def test_does_not_have_all_of_a_dict(self, d):
        assert not hasattr(d, "keys")
        for method in (d.get, d.pop):
            with pytest.raises(TypeError):
                method("a", b"default")

    @pytest.mark.parametrize("value", [bytearray(b"1"), memoryview(b"1")])
    def test_values_are_bytes_or_strings(self, d, value):
        with pytest.raises(TypeError):
            d.put("a", value)
        with pytest.raises(TypeError):
            d["a"] = pickle.PickleBuffer(value)
        d.put("a", "text")
        assert d.get("a") == b"text"

    def test_aborts_in_bput(self, d):
        status, _ = run(OPEN + "    d.bput({'a': bytearray(b'1')})")
        assert status == -signal.SIGABRT

    @pytest.mark.parametrize("value", [None, b"", ""])
    def test_empty_values_delete(self, d, value):
        d.put("a", b"1")
        d.put("a", value)
        assert "a" not in d
        d.bput({"a": b"1", "b": b"2"})
        d.bput({"a": value})
        assert d.dump() == {"b": b"2"}

    def test_keys(self, pydaos, d):
        d.put(b"a", b"1")
        assert d["a"] == b"1"
        d.put("b\0c", b"2")
        assert sorted(d) == ["a", "b"]
        with pytest.raises(pydaos.PyDError, match="DER_INVAL"):
            d.put("", b"1")
        with pytest.raises(TypeError):
            d.put(1, b"1")

    def test_missing_keys(self, d):
        with pytest.raises(KeyError):
            d.get("a")
        with pytest.raises(KeyError):
            d["a"]
        assert d.pop("a") is None
        del d["a"]
        values = {"a": b"something", "b": None}
        d.put("b", b"2")
        d.bget(values)
        assert values == {"a": None, "b": b"2"}

    def test_popping_gives_nothing(self, d):
        d.put("a", b"1")
        assert d.pop("a") is None
        assert "a" not in d

    def test_counting(self, d):
        assert not d
        d.bput({str(i): b"1" for i in range(20)})
        assert d
        assert len(d) == len(list(d)) == 20

    def test_the_largest_value(self, pydaos, d, monkeypatch):
        with pytest.raises(pydaos.PyDError):
            d.put("a", bytes(2**31))
        monkeypatch.setattr(pydaos, "MAX_VALUE", 10)
        d.put("a", bytes(10))
        with pytest.raises(pydaos.PyDError):
            d.put("a", bytes(11))


class TestTheInterpretersLock:
    def test_is_kept_during_a_transfer(self, d, monkeypatch):
        d.put("a", bytes(1 << 20))
        monkeypatch.setenv("PYDAOS_DOUBLE_BANDWIDTH", str(4 << 20))  # a quarter second
        gaps = []
        stop = threading.Event()

        def heartbeat():
            last = time.monotonic()
            while not stop.wait(0.005):
                now = time.monotonic()
                gaps.append(now - last)
                last = now

        thread = threading.Thread(target=heartbeat)
        thread.start()
        assert "a" in d, "which transfers it"
        stop.set()
        thread.join()
        assert max(gaps) > 0.2


class TestProcesses:
    def test_forking(self, d):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                d.put("a", b"1")
            except RuntimeError as e:
                os.write(write, str(e).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert b"forked" in os.read(read, 100)

    def test_a_pickled_handle_crashes_the_other_process(self, d, tmp_path):
        path = tmp_path / "pickled"
        assert run(
            OPEN + "    open(sys.argv[1], 'wb').write(pickle.dumps(d))\n"
            "    del d, container",
            str(path),
        ) == (0, "")
        status, _ = run(
            "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')).get('a')",
            str(path),
        )
        assert status == -signal.SIGABRT

    def test_handles_that_are_open_at_exit(self, d):
        status, _ = run(OPEN)
        assert status == -signal.SIGABRT
        assert run(OPEN + "    d = container = None") == (0, "")

    def test_an_agent_that_starts_again(self, pydaos, container, d):
        d.put("a", b"1")
        pydaos.restart_agent()
        uses = [d.get, d.pop, container.get, container.dict, lambda key: list(d)]
        for use in uses * 2:
            with pytest.raises(pydaos.PyDError, match="DER_NO_HDL"):
                use("a")
        assert pydaos.DCont("pool", "kvstore").get("d").get("a") == b"1"

    def test_a_race_to_create(self, pool, tmp_path):
        code = """
            import os, sys, time, pydaos
            container = pydaos.DCont("pool", "kvstore")
            open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
            while len(os.listdir(sys.argv[1])) < 4:
                time.sleep(0.001)
            for i in range(300):
                try:
                    container.get(f"raced-{i}")
                except pydaos.DObjNotFound:
                    container.dict(f"raced-{i}")
            """
        started = tmp_path / "started"
        started.mkdir()
        processes = [start(code, str(started)) for _ in range(4)]
        errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
        assert any("DER_EXIST" in error for error in errors), errors
