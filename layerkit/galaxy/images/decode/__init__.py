"""Files to pictures: the supported formats, and the meaning of axes and pixel values."""
