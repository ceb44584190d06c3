"""A store as an Arrow file system, for libraries that do their own I/O, such as Ray Train's checkpoints."""

import fsspec
import pyarrow.fs

from pipeline.storage.store import Store


def arrow_filesystem(store: Store) -> tuple[pyarrow.fs.FileSystem | None, str]:
    """Return an Arrow file system and the store's root in it, or None and a path for local disk.

    Goes through fsspec like every other access, so that the same credentials and servers work. Older servers answer
    411 to Arrow's own S3 client.
    """
    if store.is_local:
        return None, store.uri
    options = {"endpoint_url": store.endpoint_url} if store.uri.startswith("s3://") else {}
    files, path = fsspec.core.url_to_fs(store.uri, use_listings_cache=False, **options)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files)), path.rstrip("/")
