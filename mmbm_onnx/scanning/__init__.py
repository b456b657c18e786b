"""Looking for a backdoor: how little drives samples to each class."""
