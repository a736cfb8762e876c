"""From a configuration to the table of processes and edges that runs."""
