"""The shards of one image: in line to be made, and looked at again when they lie on the disk.

What happens to a shard is decided here, by receipts; pixels are seen by workers alone.
"""
