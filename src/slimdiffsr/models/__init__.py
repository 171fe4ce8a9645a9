"""The networks: students, teacher, adversaries, learned measures, and their parts."""
