"""What people write -> records of sim_core."""
