"""The stages of one image: plain functions on rows, one file a stage."""
