"""The ledger of a destination, its Parquet parts, and the lease that keeps it to one writer."""
