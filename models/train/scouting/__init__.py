"""Fitting scouts: what tiers leave on photos (`observe`), and the fit to it (`fit`).

The scout itself, which predicts that for a tile, is models/scout.py.
"""
