"""Blocks that all networks share; shapes are in the names, `x_BTD` being batch, time, width."""
