"""Looking at nets: summaries, drawings, times, dead units, and checks of gradients."""
