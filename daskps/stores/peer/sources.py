"""From which host another one is to read an object. Runs in the server of the host that
stored it, whom all readers ask first.

A host that has an object, or a part of it, can give it to others. If each gives it to one
other, the first chunks are soon everywhere, and all hosts have the object in about the time
of one transfer: links carry as much in either direction at once. A long row of hosts is as
late at its end as a chunk takes to pass through it, so the choice is between one more
reader for a source and a longer way.

Uses the standard library alone. Nothing here waits or knows of connections:
``benchmarks/spreading.py`` has the same code choose for a thousand simulated hosts.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable

from daskps.stores.interfaces import Address
from daskps.stores.peer.chunks import CHUNK_NBYTES

# A smaller object is read from the host that stored it.
PASSED_ON_NBYTES = 4 * CHUNK_NBYTES
# A host more on the way costs about as much as so many bytes: it receives a chunk, checks
# it, and sends it.
STEP_NBYTES = CHUNK_NBYTES * 3 // 2


class Sources:
    """What one host knows of the copies of its objects.

    Thread-safe.

    Parameters
    ----------
    here
        Of this host's server.
    """

    def __init__(self, here: Address):
        self._here = here
        self._lock = threading.Lock()
        self._objects: dict[str, _Copies] = {}

    def begins(
        self,
        name: str,
        nbytes: int,
        reader: Address,
        without: Collection[Address] = (),
    ) -> Address:
        """A reader wants an object; where it is to read it.

        Parameters
        ----------
        name, nbytes
            Of the object.
        reader
            Its host's server.
        without
            Who could not give it. If one of them said to have it, that is forgotten.
        """
        with self._lock:
            copies = self._objects.setdefault(name, _Copies())
            # Who asks has no copy any more.
            copies.whole.difference_update({*without, reader})
            copies.partial.pop(reader, None)
            source = self._here
            if nbytes >= PASSED_ON_NBYTES:
                source = copies.choose(self._here, nbytes, reader, without)
            copies.partial[reader] = source
            return source

    def ended(self, name: str, reader: Address, whole: bool) -> None:
        """A reader has read, or has given up."""
        with self._lock:
            copies = self._objects.get(name)
            if copies is None or copies.partial.pop(reader, None) is None:
                return  # the object was evicted meanwhile
            if whole:
                copies.whole.add(reader)
            elif not copies.whole and not copies.partial:
                del self._objects[name]

    def forget(self, names: Iterable[str]) -> dict[str, list[Address]]:
        """Objects are evicted; which hosts have, or are about to have, copies of which."""
        with self._lock:
            found = ((name, self._objects.pop(name, None)) for name in names)
            return {
                name: [*copies.whole.union(copies.partial)]
                for name, copies in found
                if copies is not None
            }


class _Copies:
    """Of one object.

    Attributes
    ----------
    whole
        Who has all of it.
    partial
        Who is reading it, and from whom.
    """

    whole: set[Address]
    partial: dict[Address, Address]

    __slots__ = ("partial", "whole")

    def __init__(self) -> None:
        self.whole = set()
        self.partial = {}

    def choose(
        self, here: Address, nbytes: int, reader: Address, without: Collection[Address]
    ) -> Address:
        """The source from which a reader will have an object first."""
        steps = self._steps(here, reader)
        load = dict.fromkeys(steps, 0)
        for source in self.partial.values():
            load[source] = load.get(source, 0) + 1
        candidates = [one for one in steps if one not in without]
        return min(
            candidates,
            key=lambda one: (
                load[one] * nbytes + steps[one] * STEP_NBYTES,
                one == here,
            ),
            default=here,  # whatever it could not give, or has lost
        )

    def _steps(self, here: Address, reader: Address) -> dict[Address, int]:
        """How far all are from a whole copy who do not wait for a reader themselves."""
        steps = {here: 0, **dict.fromkeys(self.whole, 0)}
        behind = {reader}
        for reading in self.partial:
            one, way = reading, list[Address]()
            while one not in steps and one not in behind:
                way.append(one)
                # Who reads from somebody who has lost it will ask again.
                one = self.partial.get(one, here)
            for number, each in enumerate(reversed(way), 1):
                if one in behind:
                    behind.add(each)
                else:
                    steps[each] = steps[one] + number
        steps.pop(reader, None)
        return steps
