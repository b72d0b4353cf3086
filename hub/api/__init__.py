"""The lookup API over HTTP. Imports neither fetching, mapping engine nor column engines."""
