"""HTTP/1.1 with providers: what is written and read, and the connections that it goes by. It knows no images."""
