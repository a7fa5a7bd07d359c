"""What providers and libraries say of errors, and what it means to a client."""
