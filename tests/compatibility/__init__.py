"""The real-server part of the suite on every server that is found: scripts/compatibility (docs/servers.md)."""
