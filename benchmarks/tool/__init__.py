"""What `manyeyes bench` runs: how many cameras a machine takes, where the time goes, what changed."""
