"""``dask daskps ...``: commands for the shell."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import click

from daskps.exceptions import ConfigError
from daskps.linux import is_linux, system

# Dask's command imports this module whenever it starts a scheduler or a worker. What a
# command needs is imported when it is called.


@click.group(name="daskps")
def daskps() -> None:
    """Large values in Dask graphs, by reference."""


@daskps.command(name="sweep")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.argument("places", nargs=-1)
def sweep_command(dry_run: bool, places: tuple[str, ...]) -> None:
    """Delete what dead processes left.

    Looks into PLACES, which are directories or URLs of stores (redis://host:6379); without
    any, into shared memory and the temporary directory of this machine. What it finds in a
    directory may be a record of objects in a store of your own, which is then opened. What
    belongs to a process that is alive is never touched.
    """
    if not is_linux():
        raise click.ClickException(
            f"daskps keeps nothing on {system()}: it needs Linux"
        )
    from daskps.stores.records import sweep_records

    try:
        swept = [name for place in places for name in _sweep(place, dry_run)]
        if not places:
            swept = _sweep("shm://", dry_run) + sweep_records(dry_run=dry_run)
    except ConfigError as e:
        raise click.ClickException(str(e)) from None
    for name in swept:
        click.echo(name)
    click.echo(f"{len(swept)} {'found' if dry_run else 'deleted'}")


@daskps.command(name="explain", context_settings={"ignore_unknown_options": True})
@click.option(
    "--no-run",
    is_flag=True,
    help="Stop at the first graph that is explained, before it is sent. If none is, "
    "explain the collections that the script has made.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Explain every graph, not only those that Dask would warn of.",
)
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def explain_command(
    script: str, args: tuple[str, ...], no_run: bool, everything: bool
) -> None:
    """Run SCRIPT, and say which values make the graphs that it submits large.

    Each graph that Dask would warn of is explained when it is submitted, as daskps.explain
    does. ARGS are the script's own. Nothing else changes in what it does.
    """
    from daskps.client.script import Explainer, Stopped

    explainer = Explainer(script, click.echo, everything, run=not no_run)
    try:
        explainer.script(list(args))
    except Stopped:
        click.echo("Stopped before this graph was sent.")
    finally:
        # Scripts may end by sys.exit().
        graphs = "graph" if explainer.graphs == 1 else "graphs"
        explained = f"{explainer.explained} explained"
        click.echo(f"{explainer.graphs} {graphs} submitted, {explained}")
        if not (no_run or explainer.graphs):
            click.echo("--no-run explains the collections that a script makes.")


def _sweep(place: str, dry_run: bool) -> list[str]:
    from daskps.stores.files import directories as directory
    from daskps.stores.records import sweep_records
    from daskps.stores.schemes import scheme_module
    from daskps.stores.urls import check_store

    if os.path.isdir(place):
        swept = directory.sweep(place, dry_run=dry_run)
        return swept + sweep_records(place, dry_run=dry_run)
    if "://" not in place:
        raise click.BadParameter(f"{place!r} is neither a directory nor a URL")
    check_store("PLACES", place)
    parts = urlsplit(place)
    return scheme_module("PLACES", parts.scheme).sweep(parts, dry_run)
