"""Golden runs: small commands with their pixels on record, and outputs of version 0.1."""
