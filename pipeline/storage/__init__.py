"""One interface to local disk, S3 and fsspec: list, read, write, sweep."""
