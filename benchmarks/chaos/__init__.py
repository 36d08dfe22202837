"""Break what can break, and see that nothing is lost: `make chaos`.

Runs on one small photograph, each disturbed in one or more ways that a seed chooses. After each:
the array is that of an undisturbed run, byte for byte; every shard has its receipt and every
receipt its shard; exit codes said the truth; no process and no lock is left.
"""
