"""The rules, with no I/O, no clock and no logging: what a request means, costs, brought back, and owes."""
