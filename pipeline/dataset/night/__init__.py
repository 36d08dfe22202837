"""One night over an archive: its ledger, what changed, what is enlarged, and the report.

Pixels, and the tables that a person writes, are not here.
"""
