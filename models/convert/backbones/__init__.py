"""Upstream checkpoints of plain networks: one file for each network of models/backbones.

Each has `from_upstream(tensors, config, mean)`, which gives our checkpoint.
"""
