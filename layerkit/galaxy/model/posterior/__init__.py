"""The posterior of the latents: approximate, refined, and by importance sampling."""
