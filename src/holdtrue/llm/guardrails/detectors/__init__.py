"""What looks for one kind of thing in a text, one module for each kind."""
