"""Titles and captions of the figures, by the figures' names."""

CAPTIONS: dict[str, tuple[str, str]] = {
    "reconstructions": (
        "Reconstructions",
        "Each row is a galaxy that training never saw: the image x, its reconstruction f_mu(z) from"
        " a few numbers z, and the pixel variance f_Sigma(z) the model expects (logarithmic"
        " colours). A good reconstruction keeps the galaxy's size, tilt, shape and profile and"
        " leaves out noise and neighbours; the variance should be high where the galaxy is bright"
        " or steep, and low on the sky. Residuals are the image minus the model: structure left in"
        " them is what the model could not explain. The two numbers of a row are the darkest and"
        " the brightest intensity of x, which are black and white in all pictures of that row."
        " (Figure 3 of the paper.)",
    ),
    "embedding": (
        "The latent space",
        "Held-out galaxies laid out by t-SNE of their encoded means g_mu(x), each in a cell of its"
        " own near its place on the map. Neighbours should look alike, and size, tilt and"
        " concentration should change gradually across the map. All pictures share one scale of"
        " intensity. (Figure 4 of the paper.)",
    ),
    "traversal": (
        "One latent dimension at a time",
        "Each row decodes z = 0 with one coordinate moved from -3 to +3 standard deviations of the"
        " prior. A dimension in use changes the galaxy smoothly in one way, such as its tilt, size"
        " or brightness; a row that does not change is a dimension the model has switched off."
        " (Figure 5 of the paper.)",
    ),
    "samples": (
        "Galaxies from the prior",
        "Means f_mu(z) of latents drawn from the standard normal prior, beside real"
        " galaxies. They should be as varied as the real ones, and none should be unlike any"
        " galaxy. The mean carries no pixel noise, so it is smoother than an image.",
    ),
    "learning_curves": (
        "Learning curves",
        "The variational bound during training, on the images trained on and on images kept apart,"
        " and the part of it the latents cost (KL). The two bounds should rise together; training"
        " images pulling away is overfitting.",
    ),
    "squared_error": (
        "Against the bivariate Gaussian, by squared error",
        "Each point is one held-out galaxy: the squared error left by the best scaled bivariate"
        " Gaussian, fitted to that image, against the model's. The Gaussian has no sky term, as in"
        " the paper: a sky that is not zero counts against it. Below the diagonal the model is"
        " closer. The histogram shows by what factor; galaxies beyond its ends are in the hatched"
        " bars, with their number.",
    ),
    "likelihood": (
        "Against the bivariate Gaussian, by likelihood",
        "The same comparison by log likelihood per image: the model with its own variance for"
        " every pixel, the Gaussian, again without a sky term, with the one variance that suits"
        " that image best. Above the diagonal the model explains the image better.",
    ),
    "sersic_squared_error": (
        "Against the Sersic profile, by squared error",
        "The profile that astronomers fit to galaxies today, with a free index, and a constant sky:"
        " eight parameters, fitted to that image. Below the diagonal the model is closer.",
    ),
    "calibration": (
        "Are the predicted variances right?",
        "Left: the share of held-out pixels within one, two and three predicted standard deviations"
        " of the predicted mean, for each fifth of the pixels by predicted mean, beside what a"
        " normal distribution has (dashed). Above the dashes the model expects more noise than"
        " there is. Where the model's noise is not Gaussian, its intervals are those that should"
        " hold as many pixels. Right: how the pixels are distributed, in predicted standard"
        " deviations (stretched as those intervals are, where the noise is not Gaussian), beside"
        " the standard normal, on a logarithmic scale. Pixels beyond the scale are not drawn;"
        " their share is written at either end.",
    ),
    "morphology": (
        "Shapes of real and of drawn galaxies",
        "Concentration, asymmetry, Gini coefficient and ellipticity, measured in the same way on"
        " held-out galaxies and on pictures drawn from the prior with the pixel noise the model"
        " predicts. That noise is independent from pixel to pixel, which that of real pictures is"
        " not. Where the histograms agree the model's population is the real one. Hatched bars hold"
        " what lies beyond the scale.",
    ),
    "latent_coverage": (
        "Does z scatter as much as its posterior says?",
        "Pictures of galaxies that training never saw got noise of the sky's size several times"
        " over, and each time they were cut out, scaled and refined anew. Left: how far the mean of"
        " the posterior scatters, over its standard deviation, in the median of the galaxies, with"
        " the range of the middle 80%; at 1 the standard deviations are right, below they are too"
        " cautious. Right: the share of the draws within one and two standard deviations, beside"
        " what a normal distribution has (dashed). Open marks are without the temperature of each"
        " axis, which is chosen on other galaxies.",
    ),
}
