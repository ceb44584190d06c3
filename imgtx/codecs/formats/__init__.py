"""The file formats: one file a format, which ends with its `Format`, and what belongs to one format or family alone."""
