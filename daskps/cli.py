"""``dask daskps ...``: commands for the shell."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import click

from daskps.exceptions import ConfigError
from daskps.linux import is_linux, system

# Dask's command imports this module whenever it starts a scheduler or a worker. What only
# sweeping needs is imported then.


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
