"""The report as one HTML page: no script, nothing loaded, the same bytes for the same report."""
