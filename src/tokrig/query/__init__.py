"""Questions to the records: all of them at once, their names, which of them can be compared."""
