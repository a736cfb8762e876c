"""What became of every frame: the ledger, what it adds up to, and who looks for what is missing."""
