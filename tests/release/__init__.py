"""A release: built twice, compared, installed into fresh environments, and tried there. ``make dist`` runs it."""
