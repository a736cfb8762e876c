"""What people and programs see: commands, tables, metrics."""
