"""Seeded fault schedules for the exchange between three hubs; see bench/README.md."""
