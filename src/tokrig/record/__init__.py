"""What a run leaves behind: its record, its samples, the figures and verdicts that follow."""

SCHEMA_VERSION = 2
METHODOLOGY_VERSION = 2
