"""What networks are trained and measured on: photos, crops of them, and their shrunk versions.

No network and no optimiser is known here.
"""
