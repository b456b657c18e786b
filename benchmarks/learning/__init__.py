"""How long bounds take to learn, and how much memory."""
