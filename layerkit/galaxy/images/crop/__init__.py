"""One galaxy out of its picture: found, cropped and scaled."""
