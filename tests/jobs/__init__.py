"""Starts programs without paying for their imports: a server that has everything imported forks one process a job."""
