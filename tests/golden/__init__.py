"""What other packages give, run once in an environment of their own, and the settings that they were run with."""
