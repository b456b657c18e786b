"""The steps of a job, in order. ``hardening`` needs torch, ``result`` does not."""
