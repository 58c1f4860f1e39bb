"""alphabar: diffusion models you can see, prove and use."""
