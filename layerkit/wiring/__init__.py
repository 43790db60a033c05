"""Making a net of layers: which blob goes where, in which order, and on which memory."""
