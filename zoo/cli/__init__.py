"""The command line: one table of verbs, and a file for each."""
