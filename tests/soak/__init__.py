"""The soak: real processes on real servers that really fail, and an audit of every read (docs/reliability.md).

============  =======================================================================================
module        its one job
============  =======================================================================================
``plan``      the options, what each worker is like, the order of the faults
``nemesis``   `run`: one soak from start to end
``stage``     the servers and the crew, and what a fault may do with them
``faults``    the faults, each with a name, a beginning and an end
``servers``   both servers, and the wall clock of the Redis host
``proxy``     a TCP proxy that goes wrong (``python -m``)
``crew``      the processes: start, listen to, end
``board``     the shared memory that promoters write and readers hold each read against
``worker``    one process that reads (``python -m``); ``reads`` is what its threads do, ``children`` its forks
``promoter``  the process of the operators (``python -m``)
``audit``     what every read is held against; ``plants`` breaks the cache, so that it has something to find
``tally``     what all of them reported; ``report`` and ``prices`` make tables of it
============  =======================================================================================
"""
