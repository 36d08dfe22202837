"""Files in, a Source out: every format is read here, by windows or from top to bottom.

Nothing here knows plans, networks or outputs. Importing this package loads no other module of it.
"""
