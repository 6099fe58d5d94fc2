"""Pictures in files: decoded, cut and coloured by several threads, as pure functions of (seed, epoch, sample)."""
