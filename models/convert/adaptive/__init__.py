"""Upstream checkpoints of adaptive methods: one file for each method of models/adaptive.

Each has `from_upstream(tensors, config, mean)`, which gives our checkpoint.
"""
