"""Plain networks, one paper a file: what is trained, and the same network fed by rows.

No weights of others are read here (models/convert), and nothing is chosen per place
(models/adaptive).
"""
