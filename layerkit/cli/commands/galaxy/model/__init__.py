"""Commands that train a model, and that look after a trained one."""
