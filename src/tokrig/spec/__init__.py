"""What to measure: the models of a run and of a campaign, read from YAML with line numbers."""
