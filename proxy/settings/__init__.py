"""The configuration: sections, values, and how a mistake in it is explained."""
