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
``results``      what a benchmark gives: goals, tables, charts, raw figures
``candidates/``  one module per library: set up as its own documentation recommends
``report``       print it; write ``results.json``, docs/performance.md and its pictures
===============  ====================================================================================

All other modules are one benchmark each: ``NAME``, ``TITLE`` and ``run(rig, effort)``.
"""
