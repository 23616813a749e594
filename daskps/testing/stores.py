"""What every connector has to do, as tests that run against any. Needs pytest."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pickle
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from proxystore.connectors.protocols import Connector

from daskps.stores.connectors.base import StoreConnector

MIB = 1 << 20
SIZES = [0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 20 * MIB + 3]
SELECTIONS = {
    "all": np.s_[:],
    "every other row": np.s_[::2],
    "reversed": np.s_[:, ::-1],
    "a part": np.s_[3:90, 5:70],
    "one column": np.s_[..., 1],
    "nothing": np.s_[:0],
}


class StoreTests:
    """Tests of a connector. Derive from it, and say how to make one.

    Examples
    --------
    ::

        from daskps.testing import StoreTests

        class TestMyStore(StoreTests):
            def make_connector(self):
                return MyConnector("example.org")
    """

    def make_connector(self) -> StoreConnector[Any]:
        """Make a connector to a new, empty store, of which it is the owner."""
        raise NotImplementedError("say how to make a connector: make_connector(self)")

    @pytest.fixture
    def connector(self) -> Iterator[StoreConnector[Any]]:
        """The owner of a store."""
        connector = self.make_connector()
        yield connector
        connector.close()

    @pytest.fixture
    def another(
        self, connector: StoreConnector[Any]
    ) -> Iterator[Callable[[], StoreConnector[Any]]]:
        """Makes connectors to the same store, as other processes have them."""
        config = pickle.dumps(connector.connector_config())
        with contextlib.ExitStack() as made:

            def make() -> StoreConnector[Any]:
                other: StoreConnector[Any] = pickle.loads(config).make()
                made.callback(other.close)
                return other

            yield make

    # Objects

    def test_proxystore_takes_it(self, connector: Any) -> None:
        assert isinstance(connector, Connector)

    @pytest.mark.parametrize("nbytes", SIZES)
    def test_gives_back_what_was_put(self, connector: Any, nbytes: int) -> None:
        data = np.random.default_rng(nbytes).bytes(nbytes)
        key = connector.put(data)
        assert bytes(connector.get(key)) == data
        connector.evict(key)

    @pytest.mark.parametrize("kind_of_buffer", [bytes, bytearray, memoryview])
    def test_takes_every_kind_of_buffer(
        self, connector: Any, kind_of_buffer: Any
    ) -> None:
        data = kind_of_buffer(b"abc")
        keys = [connector.put(data), connector.put_frames([data, data])]
        assert [bytes(connector.get(key)) for key in keys] == [b"abc", b"abcabc"]

    @pytest.mark.parametrize("dtype", ["f8", "u2", "?", "M8[ns]", "S5"])
    def test_takes_memory_of_every_type(self, connector: Any, dtype: str) -> None:
        array = np.zeros((5, 7), dtype)
        frames = [array] if dtype == "M8[ns]" else [array, array.data]
        key = connector.put_frames(frames)
        assert bytes(connector.get(key)) == array.tobytes() * len(frames)

    def test_joins_many_frames(self, connector: Any) -> None:
        frames = [bytes([i % 256]) * (i % 5) for i in range(3000)]
        key = connector.put_frames(frames)
        assert bytes(connector.get(key)) == b"".join(frames)

    def test_joins_no_frames(self, connector: Any) -> None:
        key = connector.put_frames([])
        assert bytes(connector.get(key)) == b""

    @pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
    def test_writes_strided_arrays_in_c_order(
        self, connector: Any, select: Any
    ) -> None:
        whole = np.arange(100 * 80 * 30).reshape(100, 80, 30)
        for array in (whole[select], whole[select].T):
            key = connector.put_frames([b"head", array])
            assert bytes(connector.get(key)) == b"head" + array.tobytes()
            connector.evict(key)

    def test_puts_and_gets_several(self, connector: Any) -> None:
        keys = connector.put_batch([b"a", b"b", b""])
        assert [bytes(data) for data in connector.get_batch(keys)] == [b"a", b"b", b""]

    def test_equal_objects_have_keys_of_their_own(self, connector: Any) -> None:
        one, two = connector.put(b"same"), connector.put(b"same")
        assert one != two
        connector.evict(one)
        assert bytes(connector.get(two)) == b"same"

    def test_what_a_reader_writes_nobody_else_sees(self, connector: Any) -> None:
        key = connector.put(bytes(MIB))
        mine, other = (memoryview(connector.get(key)) for _ in range(2))
        if not mine.readonly:
            mine[:3] = b"abc"
            assert bytes(mine[:3]) == b"abc"
        assert bytes(other[:3]) == bytes(3)
        assert bytes(connector.get(key)[:3]) == bytes(3)

    # Keys

    def test_knows_what_it_has(self, connector: Any) -> None:
        for data in (b"x", b"", bytes(3 * MIB)):
            key = connector.put(data)
            assert connector.exists(key)
            connector.evict(key)
            assert not connector.exists(key)
            assert connector.get(key) is None
            assert connector.get_batch([key, key]) == [None, None]

    def test_evicting_twice_is_no_error(self, connector: Any) -> None:
        key = connector.put(b"x")
        connector.evict(key)
        connector.evict(key)

    def test_keys_are_small_and_survive_pickling(self, connector: Any) -> None:
        key = connector.put(bytes(3 * MIB))
        pickled = pickle.dumps(key)
        assert len(pickled) < 400
        assert pickle.loads(pickled) == key
        assert hash(pickle.loads(pickled)) == hash(key)
        assert bytes(connector.get(pickle.loads(pickled))) == bytes(3 * MIB)

    # Processes and threads

    def test_another_connector_has_the_same_objects(
        self, connector: Any, another: Callable[[], Any]
    ) -> None:
        key = connector.put(b"shared")
        other = another()
        assert bytes(other.get(key)) == b"shared"
        other.close()
        assert bytes(connector.get(key)) == b"shared", "it is not the owner"

    def test_what_was_read_outlives_eviction_and_closing(
        self, connector: Any, another: Callable[[], Any]
    ) -> None:
        key = connector.put(bytes(3 * MIB))
        other = another()
        data = other.get(key)
        other.close()
        connector.evict(key)
        assert bytes(data) == bytes(3 * MIB)

    def test_evicting_while_others_read(self, connector: Any) -> None:
        """Each read gives the whole object, or none."""
        data = secrets.token_bytes(5 * MIB)
        keys = [connector.put(data) for _ in range(6)]

        def read(_: int) -> list[Any]:
            # ProxyStore's FileConnector says so of a file that goes after it was found.
            with contextlib.suppress(FileNotFoundError):
                return [x for x in connector.get_batch(keys) if x is not None]
            return []

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            reading = pool.map(read, range(8))
            for key in keys:
                connector.evict(key)
            found = [x for some in reading for x in some]
        assert all(bytes(x) == data for x in found)

    def test_sixteen_threads(self, connector: Any) -> None:
        def work(i: int) -> bool:
            data = bytes([i]) * (1000 * i + 1)
            key = connector.put(data)
            same = bytes(connector.get(key)) == data
            connector.evict(key)
            return same and not connector.exists(key)

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert all(pool.map(work, range(200)))
