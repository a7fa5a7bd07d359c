"""Reading a client's body: JSON, forms and the files in them, within bounds."""
