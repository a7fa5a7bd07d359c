"""The routes: what a request is answered with, once it may be."""
