"""pydaos has these traps: the double, and the real one if there is a pool of DAOS."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time

import pytest
from daos_pool import double_only, pool, pydaos, run, start
from processes import PATIENCE

__all__ = ["pool", "pydaos"]

OPEN = """
    import os, pickle, sys, pydaos
    pool, container, name = sys.argv[1:4]
    container = pydaos.DCont(pool, container)
    try:
        d = container.get(name)
    except pydaos.DObjNotFound:
        d = container.dict(name)
"""


@pytest.fixture
def container(pool, pydaos):
    return pydaos.DCont(pool.pool, pool.container)


@pytest.fixture
def d(pool, container):
    return container.dict(pool.namespace)


class TestContainers:
    def test_that_are_not_there(self, pool, pydaos):
        with pytest.raises(pydaos.PyDError, match="DER_NONEXIST"):
            pydaos.DCont(pool.pool, "not-there")

    def test_a_dictionary_is_created_once(self, pool, pydaos, container):
        name = pool.namespace
        with pytest.raises(pydaos.DObjNotFound, match=f"Failed to open '{name}'"):
            container.get(name)
        container.dict(name, {"a": b"1"})
        assert container.get(name)["a"] == container[name]["a"] == b"1"
        with pytest.raises(
            pydaos.PyDError, match="failed to create DAOS dict: DER_EXIST"
        ):
            container.dict(name)

    def test_names(self, pool, pydaos, container):
        long = f"{pool.namespace}." + "é" * 2000
        container.dict(long)
        assert container.get(long).dump() == {}
        with pytest.raises(pydaos.PyDError, match="DER_INVAL"):
            container.dict("")
        with pytest.raises(ValueError, match="null"):
            container.dict("a\0b")

    def test_is_shown_as_a_url(self, pool, container):
        assert repr(container) == f"daos://{pool.pool}/{pool.container}"

    def test_error_codes(self, pydaos):
        assert str(pydaos.PyDError("m", -1007)) == "m: DER_NOSPACE"

    def test_an_error_that_follows_itself(self, pydaos):
        error = pydaos.DObjNotFound("d")
        with pytest.raises(RecursionError):
            repr(error)
        with pytest.raises(RecursionError):
            pickle.dumps(error)

    def test_is_seen_by_other_processes(self, pool, d):
        code = OPEN + "    d.put('a', b'1')\n    del d, container"
        assert run(code, *pool.names) == (0, "")
        assert d.get("a") == b"1"

    @double_only
    def test_initialises_the_library_once(self, pool, pydaos, container, d):
        pydaos.DCont(pool.pool, pool.container)
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

    def test_aborts_in_bput(self, pool, d):
        with pytest.raises(TypeError):
            d.bput({"a": bytearray(b"1")})
        code = OPEN + "    d.bput({'a': b'1', 'b': bytearray(b'1')})"
        status, _ = run(code, *pool.names)
        assert status == -signal.SIGABRT

    def test_nothing_is_accepted(self, d):
        d.bput(None)
        assert d.bget(None) is None
        values = {"a": None}
        assert d.bget(values) is values

    def test_are_compared_by_content(self, d):
        d.put("a", b"1")
        assert d == {"a": b"1"}
        assert d != {}
        with pytest.raises(TypeError, match="unhashable"):
            hash(d)
        assert d.value_size == 1 << 20

    def test_iterators_cannot_be_iterated_over(self, d):
        d.put("a", b"1")
        keys = iter(d)
        assert next(keys) == "a"
        assert not hasattr(keys, "__iter__")

    def test_keys_that_are_no_text(self, d):
        d.put(b"\xff", b"1")
        with pytest.raises(SystemError):
            list(d)
        d.put(b"\xff", None)

    def test_long_keys(self, d):
        d.put("k" * 70_000, b"1")
        assert list(d) == ["k" * 70_000]

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

    @double_only
    def test_the_largest_value(self, pydaos, d, monkeypatch):
        with pytest.raises(pydaos.PyDError):
            d.put("a", bytes(2**31))
        monkeypatch.setattr(pydaos, "MAX_VALUE", 10)
        d.put("a", bytes(10))
        with pytest.raises(pydaos.PyDError):
            d.put("a", bytes(11))


class TestTheInterpretersLock:
    @double_only
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
    @double_only
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
        d.put("a", b"1")

    @double_only
    def test_a_forked_process_that_ends(self, pool, d):
        """It aborts, and its parent hangs."""
        code = """
    pid = os.fork()
    if pid == 0:
        sys.exit()
    print(os.waitpid(pid, 0)[1], flush=True)
    d.put('a', b'1')
"""
        status, said = run(OPEN + code, *pool.names)
        assert status != 0
        assert said.startswith(str(int(signal.SIGABRT)))
        assert "the real one hangs" in said

    def test_a_pickled_handle_crashes_the_other_process(self, pool, d, tmp_path):
        path = tmp_path / "pickled"
        code = """
    open(sys.argv[4], 'wb').write(pickle.dumps(d))
    del d, container
"""
        assert run(OPEN + code, *pool.names, str(path)) == (0, "")
        status, _ = run(
            "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')).get('a')",
            str(path),
        )
        assert status == -signal.SIGSEGV

    @double_only
    def test_handles_that_are_open_at_exit(self, pool, d):
        """In the real one it depends on the order in which they go."""
        status, _ = run(OPEN, *pool.names)
        assert status == -signal.SIGABRT

    def test_handles_that_are_dropped_before(self, pool, d):
        assert run(OPEN + "    d = container = None", *pool.names) == (0, "")

    @double_only
    def test_importing_replaces_the_handler_of_a_signal(self, pool, monkeypatch):
        code = """
            import os, signal
            signal.signal(signal.SIGTERM, lambda *_: print("handled"))
            import pydaos
            os.kill(os.getpid(), signal.SIGTERM)
            """
        monkeypatch.delenv("IPATH_NO_BACKTRACE", raising=False)
        assert run(code) == (1, "")
        monkeypatch.setenv("IPATH_NO_BACKTRACE", "1")
        monkeypatch.setenv("HFI_NO_BACKTRACE", "1")
        assert run(code) == (0, "handled")

    @double_only
    def test_an_agent_that_starts_again(self, pool, pydaos, container, d):
        d.put("a", b"1")
        pydaos.restart_agent()
        uses = [d.get, d.pop, container.get, container.dict, lambda key: list(d)]
        for use in uses * 2:
            with pytest.raises(pydaos.PyDError, match="DER_NO_HDL"):
                use("a")
        again = pydaos.DCont(pool.pool, pool.container).get(pool.namespace)
        assert again.get("a") == b"1"

    def test_a_race_to_create(self, pool, tmp_path):
        code = """
            import os, sys, time, pydaos
            directory, pool, container, namespace = sys.argv[1:]
            container = pydaos.DCont(pool, container)
            open(os.path.join(directory, str(os.getpid())), "w").close()
            while len(os.listdir(directory)) < 4:
                time.sleep(0.001)
            for i in range(300):
                try:
                    container.get(f"{namespace}.raced-{i}")
                except pydaos.DObjNotFound:
                    container.dict(f"{namespace}.raced-{i}")
            """
        started = tmp_path / "started"
        started.mkdir()
        processes = [start(code, str(started), *pool.names) for _ in range(4)]
        errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
        assert any("DER_EXIST" in error for error in errors), errors
