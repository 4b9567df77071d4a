"""The protocol's rules, each taken out of the code in turn, to see that a test notices (docs/mutants.md).

``r01.toml`` to ``r16.toml`` list the mutations, `table` reads them, `runner` runs them, `report` writes what came out.
"""
