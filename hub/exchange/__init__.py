"""The exchange between hubs (docs/protocol.md): equal nodes, signed messages, agreements, a ledger on both sides."""
