"""Store, once-only answers, catalogue, API, command and pipeline."""
