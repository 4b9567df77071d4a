"""An explicit-state model of the coherence protocol, as built, and a checker for it (docs/model.md).

`state` says what a state is, `scripts` what Redis does, `near` what a process keeps, `reads` the way of one read,
`others` the writer and the operator, `faults` what goes wrong, `promises` what must hold, `checker` explores,
`configurations` and `mutations` say what is explored. It imports nothing of `kcg_cache`: it is a second opinion.
"""
