"""PNG read row by row in bounded memory, every checksum verified and 16 bits kept."""
