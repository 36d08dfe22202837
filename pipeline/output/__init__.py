"""All that is written: the OME-Zarr store, receipts, tile table, pictures, report and exports.

Nothing here opens a source or runs a network. Import from the modules: exporting their names here
would load zarr and pyarrow with the package.
"""
