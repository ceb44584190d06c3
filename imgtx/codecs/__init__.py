"""Bytes to pixels and back: one file a format, and what every format shares (EXIF, conversions, pictures on disk)."""
