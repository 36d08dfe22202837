"""Scores in, one tier for every tile out: pure functions of arrays and plans.

Nothing here opens an image, a store or a network.
"""
