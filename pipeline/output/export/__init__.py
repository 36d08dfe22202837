"""Outputs as single files, TIFF and PNG, streamed from the OME-Zarr in bounded memory.

An export is renamed to its final name when it is complete. Nothing here changes the OME-Zarr.
"""
