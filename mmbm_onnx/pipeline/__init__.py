"""The steps of a job, in order. Up to the samples' division they need no torch."""
