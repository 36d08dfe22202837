"""Blocks of metadata that many formats hold alike: EXIF, XMP, IPTC."""
