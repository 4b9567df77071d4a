"""Benchmarks: kcg_cache beside every peer, on the same rows, in interleaved rounds (docs/performance.md).

===============  ====================================================================================
module           its one job
===============  ====================================================================================
``rows``         the rows: S, M and L
``database``     put rows into PostgreSQL, change them, load them as any service would
``rig``          both servers, on a core of their own, and what every benchmark is given
``crew``         processes that do one thing when they are told to
``board``        the memory in which changes are announced and reads are audited
``timing``       interleaved rounds, medians, spread, ratios within one round
``readers``      what a process of the crew does with one candidate
``auditing``     readers and operators whose every read is checked against the board
``relay``        a link of one bandwidth before a server, which counts bytes and turns
``results``      what a benchmark gives: goals, tables, charts, raw figures
``beside``       what two benchmarks say together
``candidates/``  one module per library: set up as its own documentation recommends
``catalogue``    all benchmarks, in the order in which they run
``machine``      what the figures were measured on
``report``       print it; write ``results.json`` and docs/performance.md; ``pictures`` draws
===============  ====================================================================================

All other modules are one benchmark each: ``NAME``, ``TITLE`` and ``run(rig, effort)``.
"""
