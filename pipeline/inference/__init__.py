"""Arrays in, arrays out: normalise, score, enlarge the windows of a shard, blend, halve.

No files, no stores and no pool of workers are known here.
"""
