"""What happened, kept: a SQLite file with one row an incident and one a happening."""
