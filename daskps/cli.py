"""``dask daskps ...``: commands for the shell."""

from __future__ import annotations

import tempfile

import click
import dask

from daskps.stores.directory import sweep


@click.group(name="daskps")
def daskps() -> None:
    """Large values in Dask graphs, by reference."""


@daskps.command(name="sweep")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.argument("directories", nargs=-1, type=click.Path(exists=True, file_okay=False))
def sweep_command(dry_run: bool, directories: tuple[str, ...]) -> None:
    """Delete what dead processes left on this machine.

    Looks into DIRECTORIES; without any, into shared memory and the temporary directory.
    Stores whose owner is alive are never touched.
    """
    defaults = (
        dask.config.get("daskps.shm.directory"),
        dask.config.get("temporary-directory") or tempfile.gettempdir(),
    )
    swept = [
        path for d in directories or defaults for path in sweep(d, dry_run=dry_run)
    ]
    for path in swept:
        click.echo(path)
    click.echo(f"{len(swept)} {'found' if dry_run else 'deleted'}")
