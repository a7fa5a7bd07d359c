"""Providers: how they are reached, what each kind of them speaks, and what their failures mean."""
