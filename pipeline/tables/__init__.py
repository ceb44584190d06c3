"""Arrow tables that travel: schemas, rows, hashing, and tables on local disk."""
