"""What the scheduler knows of objects, and what they add up to."""

from __future__ import annotations

import random

from daskps.references.nodes import ObjectId
from daskps.scheduler.ledger import Ledger

A, B, ELSEWHERE = ObjectId("s", "a"), ObjectId("s", "b"), ObjectId("t", "c")


def counted(ledger, store):
    """The totals, added up anew."""
    entries = [entry for id, entry in ledger.items() if id.store == store]
    return (
        len(entries),
        sum(entry.nbytes for entry in entries),
        sum(entry.nbytes for entry in entries if not entry.tasks),
        sum(entry.hits for entry in entries),
    )


def totals(ledger, store):
    found = ledger.totals(store)
    return found.objects, found.nbytes, found.kept, found.hits


def test_totals_are_by_store():
    ledger = Ledger()
    ledger.note(A, 10)
    ledger.note(ELSEWHERE, 5)
    assert totals(ledger, "s") == (1, 10, 10, 0)
    assert totals(ledger, "t") == (1, 5, 5, 0)
    assert totals(ledger, "other") == (0, 0, 0, 0)


def test_what_tasks_need_is_not_idle():
    ledger = Ledger()
    ledger.note(A, 10)
    ledger.need(A, "x")
    ledger.need(A, "y")
    assert totals(ledger, "s") == (1, 10, 0, 0)
    ledger.need_no_more(A, "x")
    assert ledger.totals("s").kept == 0
    ledger.need_no_more(A, "y")
    ledger.need_no_more(A, "y")
    assert ledger.totals("s").kept == 10


def test_an_object_that_is_noted_again_stays_what_it_is():
    ledger = Ledger()
    entry = ledger.note(A, 10)
    assert ledger.note(A, 20) is entry
    assert ledger.totals("s").nbytes == 10


def test_totals_are_what_the_entries_add_up_to():
    ledger, chance = Ledger(), random.Random(0)
    ids = [ObjectId(chance.choice("st"), n) for n in range(30)]
    for _ in range(3000):
        id = chance.choice(ids)
        if ledger.get(id) is None:
            ledger.note(id, chance.randrange(1000))
        else:
            step = chance.choice(["hold", "need", "need_no_more", "drop"])
            task = [chance.randrange(3)] if step.startswith("need") else []
            getattr(ledger, step)(id, *task)
        for store in "st":
            assert totals(ledger, store) == counted(ledger, store)


def test_the_largest_come_first():
    ledger = Ledger()
    for n, id in enumerate([A, B, ELSEWHERE]):
        ledger.note(id, n)
    assert [id for id, _ in ledger.largest(2)] == [ELSEWHERE, B]
    assert sorted(ledger.keys("s")) == ["a", "b"]
