"""What the cheaper forms of the detector cost in strength."""
