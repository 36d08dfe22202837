"""Arrays as sources: numpy, dask, zarr and OME-Zarr, and ingested copies in zarr."""
