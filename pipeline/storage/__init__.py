"""Bytes at paths and URIs: local files, object stores, zarr stores, leases, SQLite, atomic writes.

Nothing here knows images, plans or outputs. Importing this package loads no other module of it.
"""
