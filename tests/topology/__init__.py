"""Sentinel and Cluster of real processes, whose masters fail under a fleet that reads (docs/failover.md).

==============  =====================================================================================
module          its one job
==============  =====================================================================================
``nodes``       single servers: data nodes, Sentinels
``network``     relays that can be cut for some users alone (``python -m``)
``sentinel``    a master, two replicas, three Sentinels; ``cluster`` three masters with a replica each
``outages``     what happens to them, each with a beginning and an end
``play``        `run`: one scenario from start to end, with the fleet and the audit of `tests.soak`
``figures``     what came out, as tables
==============  =====================================================================================
"""
