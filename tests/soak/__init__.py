"""The soak: real processes on real servers that really fail, and an audit of every read (docs/reliability.md)."""
