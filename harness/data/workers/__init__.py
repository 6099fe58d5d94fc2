"""Processes of a rank that read items whose Python holds the interpreter's lock; knows neither ranks nor MXNet."""
