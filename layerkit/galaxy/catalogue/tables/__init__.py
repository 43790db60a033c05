"""Tables: rows that a model gives, files they are in, and columns joined to them."""
