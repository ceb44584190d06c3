"""Plan what a run would do: the listing minus the ledger, output names, superseded files."""
