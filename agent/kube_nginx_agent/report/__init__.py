"""What people and machines see: the journal, the status file."""
