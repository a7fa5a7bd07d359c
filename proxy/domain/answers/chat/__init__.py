"""Chat completions: passed on, or written anew in the other form."""
