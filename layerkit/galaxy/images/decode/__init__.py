"""Files to pictures: formats, axes and what their numbers mean."""
