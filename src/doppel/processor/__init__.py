"""The processor seam: harts that run guest code until there is a reason to leave."""
