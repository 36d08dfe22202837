"""Rectangles, grids, and the windows that a shard needs, in whole pixels.

No pixels and no plans are known here. Nothing is exported; import what you need by its module.
"""
