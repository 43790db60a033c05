"""Titles and captions of the figures, by the figures' names."""

CAPTIONS: dict[str, tuple[str, str]] = {
    "reconstructions": (
        "Reconstructions",
        "Each row is a galaxy that training never saw: the image x, then f_mu(z) and f_Sigma(z),"
        " the mean and the variance of its pixels for one z. As in the paper, this z is sampled"
        " from q(z | x) = N(g_mu(x), g_Sigma(x)), the posterior of the encoder alone; no gradient"
        " step has refined it. A good reconstruction keeps the galaxy's size, tilt, shape and"
        " profile, and leaves out noise and neighbours. The variance, in logarithmic colours,"
        " should be high on bright or steep parts of the galaxy and low on the sky. Residuals are"
        " the image minus the model: any structure in them is unexplained. The numbers beside a"
        " row are the darkest and the brightest intensity of x, drawn black and white in all"
        " pictures of that row; in linear units they are at most 1 from the sky, which hot pixels"
        " exceed. (Figure 3 of the paper.)",
    ),
    "embedding": (
        "The latent space",
        "Galaxies that training never saw, laid out by t-SNE of g_mu(x), the posterior means of"
        " the encoder alone. Each is drawn in a cell of its own near its place on the map."
        " Neighbours should look alike, and size, tilt and concentration should change gradually"
        " across the map. All pictures share one scale of intensity, which is black up to twice the"
        " noise of their sky, and fade at their edges. (Figure 4 of the paper.)",
    ),
    "traversal": (
        "One latent dimension at a time",
        "Each row decodes z = 0 with one coordinate moved from -3 to +3 in steps of one standard"
        " deviation of the prior. A dimension in use changes the galaxy smoothly in one way, such"
        " as its tilt, size or brightness; a row without change is a dimension that the model has"
        " switched off. No image, and so no posterior, is involved. (Figure 5 of the paper.)",
    ),
    "samples": (
        "Galaxies from the prior",
        "Left: means f_mu(z) of z drawn from the standard normal prior. Right: real galaxies. The"
        " drawn ones should be as varied as the real ones, and none should be unlike any galaxy. A"
        " mean carries no pixel noise, so it is smoother than an image.",
    ),
    "learning_curves": (
        "Learning curves",
        "The variational bound of the encoder alone during training, on the training images and"
        " on validation images, and below it the KL divergence, the part of the bound that the"
        " latents cost. Both bounds should rise together; a training bound that pulls away from"
        " the other is a sign of overfitting.",
    ),
    "squared_error": (
        "Against the bivariate Gaussian, by squared error",
        "Each point is one held-out galaxy: the squared error of the best scaled bivariate"
        " Gaussian, fitted to that image, and that of the model, at the mean of the refined"
        " posterior. The Gaussian has no sky term, as in the paper: a sky that is not zero counts"
        " against it. Below the diagonal the model is closer. The histogram shows the ratio of the"
        " two errors; hatched bars count galaxies beyond its ends.",
    ),
    "likelihood": (
        "Against the bivariate Gaussian, by likelihood",
        "The same galaxies and fits compared by log likelihood per image. The model, at the mean"
        " of the refined posterior, has its own variance for every pixel; the Gaussian, again"
        " without a sky term, has the one variance that suits the image best. Above the diagonal"
        " the model explains the image better.",
    ),
    "sersic_squared_error": (
        "Against the Sersic profile, by squared error",
        "The Sersic profile with a free index, which astronomers fit to galaxies today, and a"
        " constant sky: eight parameters, fitted to each held-out image. The model's error is at"
        " the mean of the refined posterior. Below the diagonal the model is closer.",
    ),
    "calibration": (
        "Are the predicted variances right?",
        "Predictions are at the mean of the refined posterior. Left: the share of held-out pixels"
        " within one, two and three predicted standard deviations of the predicted mean, for each"
        " fifth of the pixels by predicted mean. Dashes mark the shares of a normal distribution;"
        " above them the model expects more noise than there is. For noise that is not Gaussian,"
        " the intervals are those that should hold as many pixels. Right: the distribution of the"
        " pixels in predicted standard deviations (stretched as those intervals are, if the noise"
        " is not Gaussian) and the standard normal, on a logarithmic scale. Pixels beyond the"
        " scale are not drawn; the numbers at either end are their share.",
    ),
    "morphology": (
        "Shapes of real and of drawn galaxies",
        "Concentration, asymmetry, Gini coefficient and ellipticity of held-out galaxies and of"
        " pictures drawn from the prior, measured alike. Drawn pictures have the pixel noise that"
        " the model predicts, independent from pixel to pixel, unlike the noise of real pictures."
        " Histograms that agree mean that the model's population is the real one. Hatched bars"
        " hold the galaxies beyond the scale.",
    ),
    "latent_coverage": (
        "Does z scatter as much as its posterior says?",
        "Pictures of galaxies that training never saw were given noise as strong as that of their"
        " sky, several times over, and each time cut out, scaled and refined anew. Left: the"
        " scatter of the refined posterior's mean over its standard deviation, as the median of"
        " the galaxies and the range of the middle 80%. At 1 the standard deviations are right,"
        " below 1 they are too large. Right: the share of the draws within one and two standard"
        " deviations; dashes mark the shares of a normal distribution. Open marks leave out the"
        " temperature of each axis, which is chosen on other galaxies.",
    ),
    "outliers": (
        "The strangest and the most typical galaxies",
        "Left: the galaxies that training never saw and that the model explains worst, those with"
        " the lowest bounds at their refined posteriors, the lowest first. Mergers, rings, spiral"
        " arms, neighbours and faults of the pictures should rise to the top, if most galaxies"
        " have none. Right: galaxies whose bounds are nearest to the median. The percentile of a"
        " bound among these galaxies is the column bound_percentile of a catalogue.",
    ),
}

POPULATED: dict[str, tuple[str, str]] = {  # in their place where `populate` has fitted a population
    "samples": (
        "Galaxies from the prior",
        "Left: means f_mu(z) of z drawn from the prior that was fitted to the galaxies of training,"
        " a mixture of Gaussians. Right: real galaxies. The drawn ones should be as varied as the"
        " real ones, and none should be unlike any galaxy. A mean carries no pixel noise, so it is"
        " smoother than an image.",
    ),
    "morphology": (
        "Shapes of real and of drawn galaxies",
        "Concentration, asymmetry, Gini coefficient and ellipticity of held-out galaxies and of"
        " pictures drawn from the fitted prior, measured alike. Drawn pictures have the pixel noise"
        " that the model predicts, which goes together from pixel to pixel as that of the galaxies"
        " of training does. Histograms that agree mean that the model's population is the real one."
        " Hatched bars hold the galaxies beyond the scale.",
    ),
}
