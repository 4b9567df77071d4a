"""What will bite in production, and how to mend it: the checks behind ``kcg-cache doctor``.

===================  ================================================================================
module               its one job
===================  ================================================================================
``findings``         `Finding`, `Severity`, and the table of codes
``looking``          asks both servers: the only I/O
``redis_server``     server facts, settings, clock → findings R
``rights``           what each role needs of its user in Redis → findings A
``entry``            the entry and who filled it → findings E
``client``           this host's deadlines against what was measured → findings C
``postgres_server``  server facts, pooling, clock → findings P01 to P06, P12, P13
``tables``           DDL, privileges, indexes, triggers → findings P07 to P11
``models``           what the rows say → findings D
``fleet``            the processes that read → findings F
``visit``            all of it, in order
===================  ================================================================================

All but ``looking`` and ``visit`` are pure: facts in, findings out.
"""

from kcg_cache.doctor.findings import CHECKS, Check, Finding, Severity
from kcg_cache.doctor.visit import Diagnosis, visit

__all__ = ["CHECKS", "Check", "Diagnosis", "Finding", "Severity", "visit"]
