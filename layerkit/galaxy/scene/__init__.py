"""Raw images: a field of stars and galaxies to a catalogue, a model image and a residual.

Source: Regier et al. (2015), "Celeste: variational inference for a generative model of astronomical
images", with galaxies as in Regier, McAuliffe and Prabhat (2015), section 5.
"""

from layerkit.galaxy.scene.images.field import Field, hubble_field, make_field, read_field
from layerkit.galaxy.scene.results.files import write_scene
from layerkit.galaxy.scene.scene import Scene, measure

__all__ = ["Field", "Scene", "hubble_field", "make_field", "measure", "read_field", "write_scene"]
