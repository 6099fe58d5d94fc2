"""Keeps a job alive that a launcher started: `supervise.py` restarts it, `supervised_job.py` and `reaper.py` hold it.

It watches processes and files alone, and imports nothing that takes time: not the configuration, and no ranks.
"""
