"""Programs at random: what they do depends on a seed alone, and so does what must come out.

A program is a few steps, which share a few values. Each step depends on its own number and
on the seed, so that one can be run without the others. Tasks run on the worker that was
drawn, where that decides what they receive: an array that another worker sent has another
order in memory, in plain Dask as well.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import random_values as values
from distributed import Client, as_completed, worker_client
from random_values import Draw
from same import describe, digest

from benchmarks.kinds import classes

#: How many steps a program has.
STEPS = 4
WORKERS = ["w0", "w1"]

# What tasks do.


def look(*args: Any, **kwargs: Any) -> Any:
    """Say what came."""
    return describe((args, kwargs))


def give(value: Any) -> Any:
    """Give back what came."""
    return value


def pair(*args: Any, **kwargs: Any) -> Any:
    """Give it in containers, more than once."""
    return {"args": list(args), "again": args, "kwargs": kwargs}


def write(value: Any) -> tuple[Any, Any]:
    """Change what came, where it may be changed."""
    before = describe(value)
    return before, changed(value)


def fail(value: Any) -> None:
    """Say what came, by an error."""
    raise ValueError(digest(value))


def submit_in_task(value: Any) -> Any:
    """Submit from within a task."""
    with worker_client() as client:
        return client.submit(pair, value, pure=False).result()


def changed(value: Any) -> Any:
    """A value whose own parts were written to, as far as they may be."""
    if isinstance(value, np.ndarray) and value.flags.writeable and value.size:
        value[...] = value.ravel()[-1]
    elif isinstance(value, bytearray) and value:
        value[0] ^= 1
    elif type(value) is list:
        value.append("changed")
        changed(value[0])
    elif type(value) is dict:
        value["changed"] = True
    elif isinstance(value, classes.Box):
        changed(value.value)
    return value


class Run:
    """A program while it runs on one cluster.

    Parameters
    ----------
    client
        The default client, too.
    seed
        Which program.
    """

    def __init__(self, client: Client, seed: int):
        self.client = client
        self.seed = seed
        self._shared: dict[int, Any] = {}

    def value(self, draw: Draw) -> Any:
        """A value of its own, or one that other steps have too."""
        if not draw.chance(0.3):
            return values.value(draw)
        i = draw.number(0, 2)
        if i not in self._shared:
            self._shared[i] = values.value(Draw(self.seed, "shared", i))
        draw.taken[-1] = f"shared {i}"
        return self._shared[i]

    def values(self, draw: Draw, least: int = 1, most: int = 3) -> list[Any]:
        """Some values, perhaps one of them twice."""
        made = [self.value(draw) for _ in range(draw.number(least, most))]
        return [*made, made[0]] if draw.chance(0.3) else made

    def submit(self, draw: Draw, function: Any, *args: Any, **kwargs: Any) -> Any:
        """A future of a task, on some worker."""
        return self.client.submit(
            function, *args, pure=False, workers=[draw.one_of(WORKERS)], **kwargs
        )


# Steps. What they return is compared.


def arguments(run: Run, draw: Draw) -> Any:
    """Positional, by keyword, in containers."""
    first, *rest = run.values(draw, 1, 4)
    return run.submit(draw, look, first, [rest, {"a": first}], key_=rest).result()


def results(run: Run, draw: Draw) -> Any:
    """Fetched twice."""
    future = run.submit(draw, draw.one_of([give, classes.Box, pair]), run.value(draw))
    return future.result(), run.client.gather([future])


def functions(run: Run, draw: Draw) -> Any:
    """Closures, methods and partials that carry values."""
    value = run.value(draw)
    made = [
        lambda: describe(value),
        lambda: value,
        classes.Box([value]).first,
        {"key": value}.__len__,
        [value].copy,
    ]
    return run.submit(draw, made[draw.number(0, len(made) - 1)]).result()


def mapped(run: Run, draw: Draw) -> Any:
    """Over values, in batches or not."""
    over = run.values(draw, 2, 5)
    # A large keyword argument fails in plain Dask.
    batch = draw.one_of([None, 1, 2])
    futures = run.client.map(
        draw.one_of([look, pair]),
        over,
        list(reversed(over)),
        pure=False,
        batch_size=batch,
        workers=[draw.one_of(WORKERS)],
    )
    return run.client.gather(futures)


def futures(run: Run, draw: Draw) -> Any:
    """Tasks that take what others gave, on either worker."""
    value, other = run.value(draw), run.value(draw)
    first = run.submit(draw, give, value)
    second = run.submit(draw, pair, first, {"other": [other, first]})
    third = run.submit(draw, look, second, [first, value])
    return third.result(), second.result(), first.result()


def scattered(run: Run, draw: Draw) -> Any:
    """Scattered values, used and fetched."""
    made = run.values(draw)
    options = {"broadcast": draw.chance(0.3), "hash": False}
    if draw.chance(0.5):
        sent = run.client.scatter(made, **options)
    else:
        sent = [run.client.scatter([value], **options)[0] for value in made]
    looked = [run.submit(draw, give, future) for future in sent]
    return run.client.gather(sent), run.client.gather(looked)


def delayed(run: Run, draw: Draw) -> Any:
    """A graph in which objects are shared, by arguments, closures and delayed values."""
    value, other = run.value(draw), run.value(draw)
    name = uuid.uuid4().hex
    node = dask.delayed(value, name=f"node-{name}", traverse=draw.chance(0.3))
    task = dask.delayed(pair, pure=False)
    first = task(node, other)
    second = task(first, [value, {"a": other}], by_keyword=node)
    third = dask.delayed(lambda x: (describe(x), value), pure=False)(second)
    return dask.compute(second, third, {"first": [first]})


def arrays(run: Run, draw: Draw) -> Any:
    """Blocks of arrays of all kinds, with something beside them."""
    data = values.array(draw, [(300,), (20_000,), (7, 5), (40, 60), (200, 300)])
    parts = draw.number(1, 3)  # along each axis
    x = da.from_array(data, chunks=_chunks(data, parts), name=False)
    beside = run.value(draw)
    operations: list[Callable[[], Any]] = [
        lambda: x,
        lambda: x[::2],
        lambda: x[::-1].T,
        lambda: x[1:3],
        lambda: x.rechunk(_chunks(data, parts + 1)),
        lambda: da.stack([x, x]),
        lambda: da.concatenate([x, x]),
        lambda: x.map_blocks(_looked_at, beside, dtype=x.dtype, meta=x._meta),
        lambda: x.map_blocks(_changed_block, dtype=x.dtype, meta=x._meta),
        lambda: x == x[::-1],
        lambda: x.astype("U9"),
        lambda: x.reshape(-1)[[0, 3, 2]],
        lambda: x.persist()[1:],
    ]
    chosen = [draw.number(0, len(operations) - 1) for _ in range(2)]
    return dask.compute(*(operations[i]() for i in chosen))


def _chunks(data: np.ndarray, parts: int) -> tuple[int, ...]:
    return tuple(max(1, -(-n // parts)) for n in data.shape)


def _looked_at(block: Any, beside: Any) -> Any:
    digest(beside)
    return block


def _changed_block(block: Any) -> Any:
    return changed(block.copy())


def frames(run: Run, draw: Draw) -> Any:
    """Partitions of frames, with something beside them."""
    import dask.dataframe as dd

    data = values.frame(draw)
    partitions, sort = draw.number(1, 3), draw.chance(0.5)
    x = dd.from_pandas(data, npartitions=partitions, sort=sort)
    beside = run.value(draw)
    first = data.columns[0]
    operations: list[Callable[[], Any]] = [
        lambda: x,
        lambda: x[first],
        lambda: x[[first]],
        lambda: x.map_partitions(_first_rows, beside, meta=x._meta),
        lambda: x.head(3, npartitions=-1, compute=False),
        x[first].value_counts,
        lambda: x.index,
        lambda: x.persist()[first],
        lambda: x.assign(more=1),
        lambda: dd.concat([x, x]),
        lambda: dask.delayed(look)(x.to_delayed()),
    ]
    chosen = [draw.number(0, len(operations) - 1) for _ in range(2)]
    return dask.compute(*(operations[i]() for i in chosen))


def _first_rows(part: Any, beside: Any) -> Any:
    digest(beside)
    return part.iloc[:20]


def _loses(item: Any, met: set[int] | None = None) -> bool:
    """Whether Dask makes an item of a bag anew, and without something that it had.

    It makes new containers: a subclass loses its attributes, and what is one container in
    two places becomes two. daskps keeps both.
    """
    if not isinstance(item, (list, tuple, set, frozenset, dict)):
        return False
    met = set() if met is None else met
    if hasattr(item, "__dict__") or id(item) in met:
        return True
    met.add(id(item))
    inside = [*item, *item.values()] if isinstance(item, dict) else item
    return any(_loses(thing, met) for thing in inside)


def bags(run: Run, draw: Draw) -> Any:
    """Partitions of bags, with something beside them."""
    items = [None if _loses(item) else item for item in run.values(draw, 2, 6)]
    bag = db.from_sequence(items, npartitions=draw.number(1, 3))
    beside = run.value(draw)
    # Whether two tasks have one object is up to Dask, which makes one task of them or not.
    if any(beside is item for item in items):
        beside = values.value(draw)
    operations: list[Callable[[], Any]] = [
        lambda: bag,
        lambda: bag.map(describe),
        lambda: bag.map(lambda item: (item, beside)),
        lambda: bag.map(pair, beside=beside),
        lambda: bag.map_partitions(lambda part: [look(list(part), beside)]),
        bag.count,
        lambda: bag.filter(lambda item: item is not None),
        bag.persist,
    ]
    chosen = [draw.number(0, len(operations) - 1) for _ in range(2)]
    return dask.compute(*(operations[i]() for i in chosen))


def mutation(run: Run, draw: Draw) -> Any:
    """A value that changes between one task and the next."""
    value = run.value(draw)
    node = dask.delayed(look, pure=False)([value, value])
    seen = [run.submit(draw, look, value).result()]
    changed(value)
    seen.append(run.submit(draw, look, value).result())
    seen.append(node.compute())
    changed(value)
    return seen, run.submit(draw, give, [value]).result()


def writing(run: Run, draw: Draw) -> Any:
    """Tasks that write to what they receive, several of them to the same."""
    value = run.value(draw)
    workers = [draw.one_of(WORKERS)]
    mapped = run.client.map(write, [value] * 3, pure=False, workers=workers)
    task = dask.delayed(write, pure=False)
    return run.client.gather(mapped), dask.compute(task(value), task([value]))


def failing(run: Run, draw: Draw) -> Any:
    """A task that fails: with what it came to."""
    future = run.submit(draw, fail, run.value(draw))
    error = future.exception()
    return type(error).__name__, str(error)


def completed(run: Run, draw: Draw) -> Any:
    """Results as they come."""
    over = run.values(draw, 2, 4)
    futures = [run.submit(draw, give, value) for value in over]
    done = {f.key: r for f, r in as_completed(futures, with_results=True)}
    return [done[future.key] for future in futures]


def within(run: Run, draw: Draw) -> Any:
    """A task that submits others."""
    return run.submit(draw, submit_in_task, run.value(draw)).result()


def everywhere(run: Run, draw: Draw) -> Any:
    """A function on all workers, without a task."""
    value = run.value(draw)
    looked = run.client.run(look, value, also=[value])
    given = run.client.run(give, value)
    return list(looked.values()), list(given.values())


def actors(run: Run, draw: Draw) -> Any:
    """An object that stays on a worker."""
    value = run.value(draw)
    actor = run.submit(draw, classes.Box, [value], actor=True).result()
    return actor.first().result(), actor.value


def published(run: Run, draw: Draw) -> Any:
    """A future under a name, and a plain value."""
    name = uuid.uuid4().hex
    value = run.value(draw)
    run.client.publish_dataset(run.submit(draw, give, value), name=name)
    try:
        return run.client.get_dataset(name).result()
    finally:
        run.client.unpublish_dataset(name)


ALL: list[Callable[[Run, Draw], Any]] = [
    *(arguments, results, functions, mapped, futures, scattered, delayed, arrays),
    *(frames, bags, mutation, writing, failing, completed, within, everywhere),
    *(actors, published),
]

# Addresses in memory and names of keys, which differ in each run.
_RANDOM = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8,}(-[0-9a-f]+)*|w[01]|tcp://[0-9.:]+")


def outcome(run: Run, step: int) -> tuple[Any, str]:
    """Do one step: a description of what came out, and what was drawn."""
    draw = Draw(run.seed, step)
    kind = draw.one_of(ALL)
    try:
        out = describe(kind(run, draw))
    except Exception as e:
        out = "raised", type(e).__name__, _RANDOM.sub("...", str(e))[:300]
    return out, " ".join(draw.taken)
