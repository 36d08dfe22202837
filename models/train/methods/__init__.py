"""The stages in which each adaptive method is trained, one file a method.

Losses of plain networks are in models/train/trainer.py.
"""
