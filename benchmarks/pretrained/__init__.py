"""Networks that others trained and shipped, hardened end to end."""
