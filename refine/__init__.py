"""Refinement of diffraction experiments."""

import os

# Threads of torch that wait for one another spin for some microseconds, as long as the next tensor takes, and then
# sleep. To sleep at once triples the time of small tensors; to spin for longer makes it ten times as long where another
# process holds a core. This has an effect only before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
