"""What is looked at beside each value by itself: the environment, folders, and what is left of a file with mistakes."""
