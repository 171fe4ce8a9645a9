"""The paper's equations, and the teacher made of them."""
