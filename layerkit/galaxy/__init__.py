"""Galaxy images to training set, baselines, evaluation and figures, after Regier et al. (2015)."""
