"""The console: pages for people on the admin listener, who signs in there, and the page of a key's owner."""
