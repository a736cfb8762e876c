"""How it is measured: whole runs that are looked at, figures with intervals, tables and plots."""
