"""Every use that daskps makes of what Dask does not document.

Each module lists what it uses and with which versions that was checked. The tests of this
package fail when Dask changes it.
"""
