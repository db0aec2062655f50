"""Refinement of diffraction experiments."""

import os

# Threads of torch that wait for one another should sleep: where another process holds a core, waiting in a busy loop
# makes a small refinement ten times slower. This has an effect only before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
