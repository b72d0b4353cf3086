"""A synthetic population and small real servers that act as departments."""
