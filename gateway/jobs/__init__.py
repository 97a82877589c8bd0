"""Everything under /jobs: work that nobody need wait for."""
