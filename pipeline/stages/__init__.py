"""Process one image in stages: plain functions on rows, one file a stage."""
