"""Gates: checks per entity and source, verdicts, conservation of rows."""
