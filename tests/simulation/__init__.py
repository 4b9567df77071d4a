"""A deterministic simulation of the real code: a seed owns time, chance and every interleaving (docs/simulation.md)."""
