"""A store as Arrow's file system, for libraries that write by themselves: Ray Train's checkpoints."""

import fsspec
import pyarrow.fs

from pipeline.storage.store import Store


def arrow_filesystem(store: Store) -> tuple[pyarrow.fs.FileSystem | None, str]:
    """The file system and the store's root in it; None and a path on local disk.

    Goes through fsspec, as every other access: the same credentials, the same servers. Arrow's own S3 client is
    answered 411 by older ones.
    """
    if store.is_local:
        return None, store.uri
    options = {"endpoint_url": store.endpoint_url} if store.uri.startswith("s3://") else {}
    files, path = fsspec.core.url_to_fs(store.uri, use_listings_cache=False, **options)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files)), path.rstrip("/")
