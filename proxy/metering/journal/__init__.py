"""What Redis has yet to take, on a disk of this machine."""
