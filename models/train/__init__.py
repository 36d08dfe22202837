"""Training: photos in memory, the antialiased shrink, and one schedule for each kind of network.

The command line is in jobs/train.py; what only reproduces a paper is in benchmarks/reproduce.
"""
