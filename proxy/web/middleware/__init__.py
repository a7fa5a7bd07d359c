"""What stands around every handler: ``observe`` outside of ``errors`` outside of metering, with CORS before it."""
