"""The command line about configurations: whether one is good, and whether what it names can be used."""
