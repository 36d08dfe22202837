"""Formats that are decoded whole, by Pillow or OpenJPEG, and plain rows of numbers."""
