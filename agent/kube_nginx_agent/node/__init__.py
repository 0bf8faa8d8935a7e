"""What the machine is: facts, paths, files, locks, programs. Knows nothing of nginx or clusters."""
