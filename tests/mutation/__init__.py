"""Mutations that a tool makes, mutmut, on the modules where the logic is; every survivor is explained.

`tool` runs it, `mutants` reads what it made and what became of that, `explained` holds the survivors against
``explained.toml``, `report` writes what came out into docs/mutation.md. (What `tests.mutants` takes out is chosen by
hand, rule by rule.)
"""
