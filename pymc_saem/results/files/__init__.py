"""Fits on disk: written whole or not at all, with a checksum, and checked before they are read."""
