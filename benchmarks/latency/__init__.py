"""What hardened and detector graphs cost at inference, for usual networks and for the victims."""
