"""``scan`` as a judge of networks: which of the defence benchmark's does it find suspicious?"""
