"""``dask daskps ...``: commands for the shell."""

from __future__ import annotations

import tempfile

import click
import dask

from daskps.stores.directory import sweep
from daskps.stores.records import sweep_records


@click.group(name="daskps")
def daskps() -> None:
    """Large values in Dask graphs, by reference."""


@daskps.command(name="sweep")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.argument("directories", nargs=-1, type=click.Path(exists=True, file_okay=False))
def sweep_command(dry_run: bool, directories: tuple[str, ...]) -> None:
    """Delete what dead processes left on this machine.

    Looks into DIRECTORIES; without any, into shared memory and the temporary directory.
    What it finds there may be a record of objects in a store of your own, which is then
    opened. What belongs to a process that is alive is never touched.
    """
    defaults = (
        dask.config.get("daskps.shm.directory"),
        dask.config.get("temporary-directory") or tempfile.gettempdir(),
    )
    swept = [
        path
        for directory in directories or defaults
        for sweep_one in (sweep, sweep_records)
        for path in sweep_one(directory, dry_run=dry_run)
    ]
    for path in swept:
        click.echo(path)
    click.echo(f"{len(swept)} {'found' if dry_run else 'deleted'}")
