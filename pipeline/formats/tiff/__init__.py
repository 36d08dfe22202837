"""TIFF in all its kinds: directories by tifffile, pixels tile by tile with damage named."""
