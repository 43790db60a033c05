"""Work on many sources in parts, each done by one worker and written to a file of its own."""
