"""Pictures to training rows: decoded, cropped, and prepared as a set."""
