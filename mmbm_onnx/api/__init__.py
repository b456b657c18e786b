"""One call per job. Modules are imported one by one: only ``hardening`` needs torch."""
