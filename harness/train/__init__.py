"""A run from its first line to its last; its modules are imported one by one, so that this stays light."""
